//! The service: the event loop between TUN, the core and the sockets, and its control socket.
