//! The table itself.

use std::time::Duration;

use super::{Choice, Kind, OptionSpec, SectionSpec, Side};

/// The ways to spread traffic; the same words in `interface`, `peer` and `rule`.
const POLICIES: Kind = Kind::Choice(&[
    Choice {
        word: "adaptive",
        help: "every link by what it is measured to carry, in the order in which packets arrive",
    },
    Choice { word: "weighted", help: "by `weight`, or by the links' rates where there is none" },
    Choice { word: "round-robin", help: "packet by packet in turn, as balance-rr does" },
    Choice { word: "flow", help: "a connection stays on one link, as balance-xor does" },
    Choice { word: "active-backup", help: "the best link alone; another one when it fails" },
    Choice { word: "redundant", help: "copies on several links; the first one to arrive counts" },
]);

/// An option that most people never need.
const fn advanced(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { advanced: true, ..option(name, kind, default, help) }
}

const fn option(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, list: false, default, required: false, side: Side::Both, advanced: false, help }
}

/// The option with several values.
const fn list(spec: OptionSpec) -> OptionSpec {
    OptionSpec { list: true, ..spec }
}

/// The option, for the router only.
const fn client(spec: OptionSpec) -> OptionSpec {
    OptionSpec { side: Side::Client, ..spec }
}

/// The option, for the server only.
const fn server(spec: OptionSpec) -> OptionSpec {
    OptionSpec { side: Side::Server, ..spec }
}

const fn required(spec: OptionSpec) -> OptionSpec {
    OptionSpec { required: true, ..spec }
}

const fn number(min: u32, max: u32) -> Kind {
    Kind::Integer { min, max, unit: "" }
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Duration { min: Duration::from_millis(min), max: Duration::from_millis(max) }
}

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// Every section type.
pub const SECTIONS: &[SectionSpec] = &[
    SectionSpec {
        kind: "globals",
        name: "any; `globals` by custom",
        single: true,
        side: Side::Both,
        help: "What concerns the daemon as a whole: role, own key, ports, logging.",
        options: GLOBALS,
    },
    SectionSpec {
        kind: "interface",
        name: "any; `bond` by custom",
        single: true,
        side: Side::Both,
        help: "The bonded interface: its addresses, its routes, how traffic is spread, watchdog and hooks.",
        options: INTERFACE,
    },
    SectionSpec {
        kind: "link",
        name: "the link's name in status, logs and hooks",
        single: false,
        side: Side::Client,
        help: "One internet link of the router.",
        options: LINK,
    },
    SectionSpec {
        kind: "server",
        name: "the server's name in status and logs",
        single: false,
        side: Side::Client,
        help: "Another server, for when the interface's own does not answer; the first of the file is tried first.",
        options: SERVER,
    },
    SectionSpec {
        kind: "peer",
        name: "the peer's name in status and logs",
        single: false,
        side: Side::Server,
        help: "One router that may connect to this server.",
        options: PEER,
    },
    SectionSpec {
        kind: "redirect",
        name: "optional; the redirect's name in messages",
        single: false,
        side: Side::Server,
        help: "Ports of this server that lead to a host behind a peer; the options are those of OpenWrt's firewall.",
        options: REDIRECT,
    },
    SectionSpec {
        kind: "rule",
        name: "optional; the rule's name in status",
        single: false,
        side: Side::Client,
        help: "What to do with one class of traffic; the first rule that matches counts.",
        options: RULE,
    },
];

const GLOBALS: &[OptionSpec] = &[
    option("enabled", Kind::Bool, "1", "Whether the daemon runs at all."),
    advanced(
        "role",
        Kind::Choice(&[
            Choice { word: "client", help: "the router: has links, starts the session" },
            Choice { word: "server", help: "the datacentre: has peers, waits for them" },
        ]),
        "",
        "Which end this is; without it, the end with `peer` sections is the server.",
    ),
    advanced(
        "mode",
        Kind::Choice(&[
            Choice { word: "user", help: "bonding in this program: every policy, order and recovery" },
            Choice { word: "kernel", help: "one tunnel a link, joined by the kernel's bonding driver" },
        ]),
        "user",
        "Who spreads the packets: this program or the kernel's bonding driver; both ends must agree.",
    ),
    advanced("private_key", Kind::Secret, "", "This end's private key; better kept in `private_key_file`."),
    advanced(
        "private_key_file",
        Kind::Path,
        "/etc/bonding/private.key",
        "The file with this end's private key, as `bonding genkey` prints it; mode 0600.",
    ),
    server(list(option("listen_port", Kind::Port, "5510", "UDP ports on which the server waits."))),
    server(list(option(
        "listen_address",
        Kind::Address,
        "",
        "The addresses on which the server waits; without it, all addresses of the machine.",
    ))),
    server(list(option(
        "public_address",
        Kind::Host,
        "",
        "The addresses or names at which routers reach this server: what `bonding server add-peer` tells them.",
    ))),
    server(option(
        "nat",
        Kind::Bool,
        "0",
        "Whether what comes from private addresses of peers leaves with this server's own; by an nftables table.",
    )),
    server(option(
        "forwarding",
        Kind::Bool,
        "0",
        "Whether the kernel is told to forward packets between the bond and other networks.",
    )),
    server(list(advanced(
        "trusted_network",
        Kind::Cidr,
        "",
        "With `nat`: networks that peers reach without translation, and that may open connections to them.",
    ))),
    server(advanced(
        "client_to_client",
        Kind::Bool,
        "0",
        "Whether peers may reach each other through this server.",
    )),
    advanced(
        "metrics_port",
        Kind::Port,
        "",
        "A TCP port on loopback where Prometheus finds figures: http://127.0.0.1:PORT/metrics.",
    ),
    advanced(
        "control_socket",
        Kind::Path,
        "/var/run/bonding.sock",
        "The socket of `bonding status` and its like.",
    ),
    advanced(
        "control_group",
        Kind::Group,
        "",
        "The group whose members may use the control socket beside root.",
    ),
    client(advanced(
        "state_dir",
        Kind::Path,
        "/etc/bonding",
        "The directory for what must survive a reboot: the clock of handshakes, written about twice a day.",
    )),
    option(
        "log_level",
        Kind::Choice(&[
            Choice { word: "error", help: "what stops the bond from working" },
            Choice { word: "warn", help: "what should not be so" },
            Choice { word: "info", help: "links and sessions that come and go" },
            Choice { word: "debug", help: "every decision about a link" },
            Choice { word: "trace", help: "every control packet" },
        ]),
        "info",
        "How much is logged.",
    ),
    advanced(
        "log_target",
        Kind::Choice(&[
            Choice { word: "stderr", help: "standard error, which procd and systemd collect" },
            Choice { word: "syslog", help: "the system's log" },
        ]),
        "stderr",
        "Where the log goes.",
    ),
    option(
        "cipher",
        Kind::Choice(&[
            Choice { word: "auto", help: "what the slower end has in hardware" },
            Choice { word: "aes-256-gcm", help: "AES with 256-bit keys" },
            Choice { word: "aes-128-gcm", help: "AES with 128-bit keys" },
            Choice { word: "chacha20-poly1305", help: "fast without AES instructions" },
            Choice {
                word: "none",
                help: "data in the clear, everybody on the way can read it; both ends must say so",
            },
        ]),
        "auto",
        "How data is encrypted.",
    ),
    advanced("rekey_interval", millis(SECOND, HOUR), "120", "How long one set of session keys is used."),
    client(advanced(
        "table_base",
        number(256, 4_000_000_000),
        "5510",
        "The routing table of the first link that names none; the next links take the next numbers.",
    )),
    client(advanced(
        "mark_base",
        Kind::Mark,
        "0xb1000000/0xff000000",
        "The firewall mark of the first link that names none, and the bits used; the next links take the next values.",
    )),
    advanced(
        "route_protocol",
        number(5, 255),
        "155",
        "The protocol number (as in rt_protos) that marks our routes in the kernel's tables.",
    ),
    advanced(
        "rule_priority",
        number(1, 32_000),
        "1300",
        "The priority of our first routing rule; the others follow it.",
    ),
];

const INTERFACE: &[OptionSpec] = &[
    option("ifname", Kind::Device, "bond0", "The name of the bonded network device."),
    list(option(
        "ipaddr",
        Kind::Cidr,
        "",
        "This end's addresses inside the bond; one at least, here or in `ip6addr`.",
    )),
    option(
        "netmask",
        Kind::Netmask,
        "",
        "The netmask of every IPv4 `ipaddr` that has no prefix length of its own.",
    ),
    list(option(
        "ip6addr",
        Kind::Cidr,
        "",
        "More addresses inside the bond, by the name that OpenWrt uses for IPv6.",
    )),
    client(list(option("remote_ipaddr", Kind::Address, "", "The server's addresses inside the bond."))),
    client(option(
        "public_key",
        Kind::PublicKey,
        "",
        "The server's public key, as `bonding pubkey` prints it there.",
    )),
    client(advanced(
        "preshared_key",
        Kind::Secret,
        "",
        "A secret that both ends hold beside their keys (`bonding genpsk`).",
    )),
    client(list(option(
        "server",
        Kind::Host,
        "",
        "The server's addresses or names, for the links that give none themselves.",
    ))),
    client(option(
        "remote_port",
        Kind::Port,
        "5510",
        "The server's UDP port, for the links that give none themselves.",
    )),
    client(option(
        "server_timeout",
        millis(2 * SECOND, HOUR),
        "20",
        "How long the server may be silent before one of the `server` sections takes its place, if one of them answers.",
    )),
    client(option(
        "server_return",
        millis(0, 24 * HOUR),
        "60",
        "How long a server of earlier choice must have answered again before the bond goes back to it; 0: never.",
    )),
    option("policy", POLICIES, "adaptive", "How traffic is spread over the links."),
    advanced(
        "mtu",
        // With Ethernet and VLAN headers it must fit a buffer of the core.
        Kind::Integer { min: 0, max: 2_000, unit: "bytes" },
        "0",
        "The largest packet inside the bond; 0 finds out what the links carry.",
    ),
    advanced(
        "mss_clamp",
        Kind::Bool,
        "1",
        "Whether the MSS of TCP connections is lowered to what fits the bond.",
    ),
    client(option(
        "default_route",
        Kind::Bool,
        "",
        "Whether the default route leads through the bond while it is up; without it, when a link is `active`.",
    )),
    advanced(
        "metric",
        number(0, 4_294_967_294),
        "",
        "The metric of the bond's routes; without it, one that beats the WANs'.",
    ),
    list(option("route", Kind::Prefix, "", "More networks that are reached through the bond.")),
    advanced("resequence_tcp", Kind::Bool, "1", "Whether TCP packets are put back in order before delivery."),
    advanced(
        "resequence_udp",
        Kind::Bool,
        "0",
        "Whether UDP packets are put back in order before delivery: all, or only those of flows above about 1 Mbit/s.",
    ),
    client(option(
        "watchdog",
        Kind::Bool,
        "0",
        "Whether the bond is watched by pings, and an action run when none is answered.",
    )),
    client(list(option(
        "watchdog_ip",
        Kind::Address,
        "",
        "The addresses to ping; one answer is enough. Without it, `remote_ipaddr`.",
    ))),
    client(option("watchdog_period", millis(SECOND, HOUR), "5", "How often to ping.")),
    client(option(
        "watchdog_timeout",
        millis(SECOND, 24 * HOUR),
        "30",
        "How long no ping may be answered before the action.",
    )),
    client(option(
        "watchdog_action",
        Kind::Command,
        "/etc/init.d/bonding restart",
        "The command to run then.",
    )),
    advanced(
        "preup",
        Kind::Path,
        "/etc/bonding/bonding-preup.sh",
        "The script to run before the device is made.",
    ),
    advanced(
        "up",
        Kind::Path,
        "/etc/bonding/bonding-up.sh",
        "The script to run when the device has its addresses and routes.",
    ),
    advanced(
        "predown",
        Kind::Path,
        "/etc/bonding/bonding-predown.sh",
        "The script to run before addresses and routes are removed.",
    ),
    advanced(
        "down",
        Kind::Path,
        "/etc/bonding/bonding-down.sh",
        "The script to run when the device is gone.",
    ),
    advanced(
        "link_script",
        Kind::Path,
        "",
        "The script to run when a link or the bond goes up or down, with the words of MLVPN's `statuscommand`.",
    ),
    advanced("hook_timeout", millis(SECOND, HOUR), "30", "How long a script may run before it is ended."),
    advanced(
        "bond_mode",
        Kind::Choice(&[
            Choice { word: "balance-rr", help: "packet by packet in turn" },
            Choice { word: "balance-xor", help: "by a hash of the addresses, see `xmit_hash_policy`" },
            Choice { word: "active-backup", help: "one link at a time" },
            Choice { word: "broadcast", help: "everything on every link" },
        ]),
        "balance-rr",
        "Kernel mode: the mode of the bonding driver.",
    ),
    advanced(
        "xmit_hash_policy",
        Kind::Choice(&[
            Choice { word: "layer2", help: "by hardware addresses" },
            Choice { word: "layer2+3", help: "by hardware and IP addresses" },
            Choice { word: "layer3+4", help: "by IP addresses and ports" },
        ]),
        "layer3+4",
        "Kernel mode: what balance-xor hashes.",
    ),
    advanced(
        "tunnel_type",
        Kind::Choice(&[
            Choice { word: "tun", help: "IP packets; needs the patched bonding driver" },
            Choice { word: "tap", help: "Ethernet frames; any kernel" },
        ]),
        "tun",
        "Kernel mode: what the links' tunnel devices carry.",
    ),
    advanced(
        "miimon",
        Kind::Integer { min: 0, max: 60_000, unit: "ms" },
        "100",
        "Kernel mode: how often the driver looks at the tunnels' carrier, which the daemon sets.",
    ),
    advanced(
        "arp_interval",
        Kind::Integer { min: 0, max: 60_000, unit: "ms" },
        "0",
        "Kernel mode with `tunnel_type` tap: how often the driver probes by ARP; 0 is off.",
    ),
    list(advanced(
        "arp_ip_target",
        Kind::Address,
        "",
        "Kernel mode: the IPv4 addresses that `arp_interval` probes.",
    )),
];

const LINK: &[OptionSpec] = &[
    option("enabled", Kind::Bool, "1", "Whether this link is used."),
    option(
        "interface",
        Kind::Name,
        "",
        "The OpenWrt interface of this link (`wan`); device, address and gateway come from it.",
    ),
    advanced(
        "device",
        Kind::Device,
        "",
        "The network device of this link, where there is no OpenWrt interface.",
    ),
    advanced(
        "ipaddr",
        Kind::Cidr,
        "",
        "The IPv4 source address of this link, with the prefix length of its network if known.",
    ),
    advanced("gateway", Kind::Address, "", "The IPv4 gateway of this link."),
    advanced("ip6addr", Kind::Cidr, "", "The IPv6 source address of this link."),
    advanced("ip6gateway", Kind::Address, "", "The IPv6 gateway of this link."),
    list(option(
        "server",
        Kind::Host,
        "",
        "The server's addresses or names for this link; without it, those of the bond.",
    )),
    list(advanced(
        "dns",
        Kind::Address,
        "",
        "The name servers to ask, through this link, for the server's name; without it, those of the interface.",
    )),
    option(
        "remote_port",
        Kind::Port,
        "",
        "The server's UDP port for this link; without it, that of the bond.",
    ),
    advanced("local_port", Kind::Port, "", "The UDP port to send from; without it, any free one."),
    advanced(
        "mark",
        Kind::Mark,
        "",
        "The firewall mark of this link's packets; without it, one from `mark_base`.",
    ),
    advanced(
        "routing_table",
        Kind::Table,
        "",
        "The routing table of this link; without it, one from `table_base`.",
    ),
    advanced(
        "tunnel",
        Kind::Device,
        "",
        "Kernel mode: the name of this link's own tunnel device; without it, one from `ifname`.",
    ),
    option("active", Kind::Bool, "0", "Whether this link carries the default route while the bond is down."),
    option(
        "priority",
        number(1, 255),
        "1",
        "1 is used first; links with a higher number only when the lower ones are full or down.",
    ),
    advanced("weight", number(1, 1_000), "", "The share of this link with policy weighted."),
    option(
        "upload",
        Kind::Rate,
        "",
        "The most that is sent; without it, what the link is measured to carry.",
    ),
    option(
        "download",
        Kind::Rate,
        "",
        "The most that is received; without it, what the link is measured to carry.",
    ),
    advanced(
        "mtu",
        Kind::Integer { min: 0, max: 9_000, unit: "bytes" },
        "0",
        "The largest IP packet on this link; 0 finds out.",
    ),
    option(
        "quota",
        Kind::Size,
        "",
        "The bytes a month, both ways, after which the link is used only when no other is up.",
    ),
    option(
        "quota_reset_day",
        number(1, 31),
        "1",
        "The day of the month (from midnight UTC) on which the quota starts anew; the last day in shorter months.",
    ),
    advanced("keepalive", millis(100, 60 * SECOND), "1200ms", "How often an idle link is probed."),
];

const SERVER: &[OptionSpec] = &[
    option("enabled", Kind::Bool, "1", "Whether this server may be used."),
    required(option(
        "public_key",
        Kind::PublicKey,
        "",
        "Its public key, as `bonding pubkey` prints it there.",
    )),
    advanced(
        "preshared_key",
        Kind::Secret,
        "",
        "A secret that both ends hold beside their keys (`bonding genpsk`).",
    ),
    required(list(option("server", Kind::Host, "", "Its addresses or names, for all links."))),
    option("remote_port", Kind::Port, "5510", "Its UDP port."),
    list(option(
        "ipaddr",
        Kind::Cidr,
        "",
        "This router's addresses inside the bond while that server is in use; without it, those of the interface.",
    )),
    list(option(
        "remote_ipaddr",
        Kind::Address,
        "",
        "That server's addresses inside the bond; without it, those of the interface.",
    )),
];

const PEER: &[OptionSpec] = &[
    option("enabled", Kind::Bool, "1", "Whether this peer may connect."),
    option(
        "public_key",
        Kind::PublicKey,
        "",
        "Its public key; without it, that of the first who proves `preshared_key` before `invitation_expires`.",
    ),
    advanced(
        "preshared_key",
        Kind::Secret,
        "",
        "A secret that both ends hold beside their keys (`bonding genpsk`).",
    ),
    advanced(
        "invitation_expires",
        number(0, u32::MAX),
        "",
        "Until when a peer without `public_key` may introduce itself, in seconds since 1970.",
    ),
    required(list(option(
        "ipaddr",
        Kind::Cidr,
        "",
        "The peer's addresses inside the bond; a packet from another is dropped.",
    ))),
    list(option(
        "lan",
        Kind::Prefix,
        "",
        "The networks behind the peer; routes lead to them while it is connected.",
    )),
    option("policy", POLICIES, "", "How traffic to this peer is spread; without it, as for the interface."),
    option("upload", Kind::Rate, "", "The most that is taken from this peer."),
    option("download", Kind::Rate, "", "The most that is sent to this peer."),
];

const REDIRECT: &[OptionSpec] = &[
    option("enabled", Kind::Bool, "1", "Whether this redirect counts."),
    list(option("proto", Kind::Protocol, "", "The protocols: `tcp`, `udp`; without it, both.")),
    required(option("src_dport", Kind::PortRange, "", "The ports of this server.")),
    advanced("src_dip", Kind::Address, "", "The address of this server; without it, all of them."),
    list(option("src_ip", Kind::Cidr, "", "Who may use it: addresses or networks; without it, everybody.")),
    required(option("dest_ip", Kind::Address, "", "The host behind a peer.")),
    option("dest_port", Kind::PortRange, "", "Its ports; without it, the same as here."),
];

const RULE: &[OptionSpec] = &[
    option("enabled", Kind::Bool, "1", "Whether this rule counts."),
    list(option("proto", Kind::Protocol, "", "The protocols it matches; without it, all.")),
    list(option("src_ip", Kind::Cidr, "", "The source addresses or networks it matches.")),
    list(option("dest_ip", Kind::Cidr, "", "The destination addresses or networks it matches.")),
    list(option("src_port", Kind::PortRange, "", "The source ports it matches; needs `proto` tcp or udp.")),
    list(option(
        "dest_port",
        Kind::PortRange,
        "",
        "The destination ports it matches; needs `proto` tcp or udp.",
    )),
    list(option(
        "dscp",
        Kind::Dscp,
        "",
        "The DSCP values it matches, in each direction those of its own packets; not with `outside`, for which the firewall can mark such packets.",
    )),
    advanced(
        "mark",
        Kind::Mark,
        "",
        "The firewall mark it matches; only with `outside`, since a mark does not pass the tunnel device.",
    ),
    option("policy", POLICIES, "", "How matching traffic is spread."),
    list(option(
        "link",
        Kind::Name,
        "",
        "The links that may carry matching traffic; while none of them is up, all may.",
    )),
    option(
        "outside",
        Kind::Bool,
        "0",
        "Whether matching traffic leaves outside the bond: by the first `link` that works, or by the main routing table.",
    ),
    advanced(
        "force",
        Kind::Bool,
        "0",
        "With policy redundant: send copies even where that takes capacity from other traffic.",
    ),
];
