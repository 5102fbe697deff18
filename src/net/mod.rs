//! Linux network configuration: links, addresses, routes and rules, over netlink.
