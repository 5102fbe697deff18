//! Linux packet I/O: TUN devices and UDP sockets.
