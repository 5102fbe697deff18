//! A rule as the kernel wants it: expressions that load something into a register, compare it, and act.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::net::Family;
use crate::net::message::family_number;

/// Set in the kind of an attribute that holds further attributes.
const NLA_F_NESTED: u16 = 1 << 15;

// linux/netfilter/nf_tables.h
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;

/// Registers: that of the verdict, and the first two of 16 bytes.
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_REG_2: u32 = 2;

const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;

const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;

const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;

const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const STATE_NEW: u32 = 1 << 3;
/// `IPS_DST_NAT`: the connection's destination was translated.
const IPS_DST_NAT: u32 = 1 << 5;

const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 1 << 1;
const RTN_LOCAL: u32 = 2;

const NFT_NAT_DNAT: u32 = 1;

/// `NF_DROP`.
const NF_DROP: u32 = 0;

/// Length of a device's name in the kernel (`IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// Netlink attributes one after the other. Numbers of nf_tables are big-endian.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(4 + value.len()).expect("attributes are short");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(super) fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.put(kind | NLA_F_NESTED, &inner.bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The value of an element or an operand.
pub(super) fn data(value: &[u8]) -> Attributes {
    Attributes::default().put(NFTA_DATA_VALUE, value)
}

/// Which of a packet's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Source,
    Destination,
}

/// A rule: what a packet must be, in order, and what is done with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    expressions: Attributes,
}

impl Rule {
    pub(super) fn expressions(self) -> Attributes {
        self.expressions
    }

    fn with(self, name: &str, data: Attributes) -> Rule {
        let expression = Attributes::default().text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, data);
        Rule { expressions: self.expressions.nested(NFTA_LIST_ELEM, expression) }
    }

    fn meta(self, key: u32) -> Rule {
        const NFTA_META_DREG: u16 = 1;
        const NFTA_META_KEY: u16 = 2;
        self.with("meta", Attributes::default().number(NFTA_META_DREG, NFT_REG_1).number(NFTA_META_KEY, key))
    }

    fn payload(self, base: u32, offset: u32, len: u32) -> Rule {
        const NFTA_PAYLOAD_DREG: u16 = 1;
        const NFTA_PAYLOAD_BASE: u16 = 2;
        const NFTA_PAYLOAD_OFFSET: u16 = 3;
        const NFTA_PAYLOAD_LEN: u16 = 4;
        let data = Attributes::default()
            .number(NFTA_PAYLOAD_DREG, NFT_REG_1)
            .number(NFTA_PAYLOAD_BASE, base)
            .number(NFTA_PAYLOAD_OFFSET, offset)
            .number(NFTA_PAYLOAD_LEN, len);
        self.with("payload", data)
    }

    fn compare(self, operation: u32, value: &[u8]) -> Rule {
        const NFTA_CMP_SREG: u16 = 1;
        const NFTA_CMP_OP: u16 = 2;
        const NFTA_CMP_DATA: u16 = 3;
        let operands = Attributes::default()
            .number(NFTA_CMP_SREG, NFT_REG_1)
            .number(NFTA_CMP_OP, operation)
            .nested(NFTA_CMP_DATA, data(value));
        self.with("cmp", operands)
    }

    fn mask(self, mask: u32) -> Rule {
        const NFTA_BITWISE_SREG: u16 = 1;
        const NFTA_BITWISE_DREG: u16 = 2;
        const NFTA_BITWISE_LEN: u16 = 3;
        const NFTA_BITWISE_MASK: u16 = 4;
        const NFTA_BITWISE_XOR: u16 = 5;
        let operands = Attributes::default()
            .number(NFTA_BITWISE_SREG, NFT_REG_1)
            .number(NFTA_BITWISE_DREG, NFT_REG_1)
            .number(NFTA_BITWISE_LEN, 4)
            .nested(NFTA_BITWISE_MASK, data(&mask.to_ne_bytes()))
            .nested(NFTA_BITWISE_XOR, data(&[0; 4]));
        self.with("bitwise", operands)
    }

    /// IP packets of this version; the next expressions may look at their headers.
    pub(super) fn family(self, family: Family) -> Rule {
        // NFPROTO_IPV4 and NFPROTO_IPV6 have the numbers of AF_INET and AF_INET6.
        self.meta(NFT_META_NFPROTO).compare(NFT_CMP_EQ, &[family_number(family)])
    }

    pub(super) fn protocol(self, protocol: u8) -> Rule {
        self.meta(NFT_META_L4PROTO).compare(NFT_CMP_EQ, &[protocol])
    }

    fn device(self, key: u32, name: &str, is: bool) -> Rule {
        let mut padded = [0; IFNAMSIZ];
        padded.iter_mut().zip(name.as_bytes()).for_each(|(place, byte)| *place = *byte);
        self.meta(key).compare(if is { NFT_CMP_EQ } else { NFT_CMP_NEQ }, &padded)
    }

    /// Comes in by the device, or by any other.
    pub(super) fn input(self, name: &str, is: bool) -> Rule {
        self.device(NFT_META_IIFNAME, name, is)
    }

    /// Goes out by the device, or by any other.
    pub(super) fn output(self, name: &str, is: bool) -> Rule {
        self.device(NFT_META_OIFNAME, name, is)
    }

    fn load_address(self, of: Of, family: Family) -> Rule {
        // RFC 791, section 3.1; RFC 8200, section 3.
        let (source, len) = match family {
            Family::V4 => (12, 4),
            Family::V6 => (8, 16),
        };
        let offset = if of == Of::Source { source } else { source + len };
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, offset, len)
    }

    pub(super) fn address(self, of: Of, address: IpAddr) -> Rule {
        self.load_address(of, Family::of(address)).compare(NFT_CMP_EQ, &octets(address))
    }

    /// The address is, or is not, in a set of the table.
    pub(super) fn in_set(self, of: Of, family: Family, set: &str, is: bool) -> Rule {
        const NFTA_LOOKUP_SET: u16 = 1;
        const NFTA_LOOKUP_SREG: u16 = 2;
        const NFTA_LOOKUP_FLAGS: u16 = 5;
        const NFT_LOOKUP_F_INV: u32 = 1;
        let operands = Attributes::default()
            .text(NFTA_LOOKUP_SET, set)
            .number(NFTA_LOOKUP_SREG, NFT_REG_1)
            .number(NFTA_LOOKUP_FLAGS, if is { 0 } else { NFT_LOOKUP_F_INV });
        self.load_address(of, family).with("lookup", operands)
    }

    /// TCP or UDP to one of these ports. Behind [`Rule::protocol`].
    pub(super) fn destination_ports(self, ports: &RangeInclusive<u16>) -> Rule {
        const NFTA_RANGE_SREG: u16 = 1;
        const NFTA_RANGE_OP: u16 = 2;
        const NFTA_RANGE_FROM_DATA: u16 = 3;
        const NFTA_RANGE_TO_DATA: u16 = 4;
        const NFT_RANGE_EQ: u32 = 0;
        let loaded = self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
        if ports.start() == ports.end() {
            return loaded.compare(NFT_CMP_EQ, &ports.start().to_be_bytes());
        }
        let operands = Attributes::default()
            .number(NFTA_RANGE_SREG, NFT_REG_1)
            .number(NFTA_RANGE_OP, NFT_RANGE_EQ)
            .nested(NFTA_RANGE_FROM_DATA, data(&ports.start().to_be_bytes()))
            .nested(NFTA_RANGE_TO_DATA, data(&ports.end().to_be_bytes()));
        loaded.with("range", operands)
    }

    /// To an address of this machine.
    pub(super) fn for_this_machine(self) -> Rule {
        const NFTA_FIB_DREG: u16 = 1;
        const NFTA_FIB_RESULT: u16 = 2;
        const NFTA_FIB_FLAGS: u16 = 3;
        let question = Attributes::default()
            .number(NFTA_FIB_DREG, NFT_REG_1)
            .number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
            .number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
        self.with("fib", question).compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes())
    }

    fn conntrack(self, key: u32) -> Rule {
        const NFTA_CT_DREG: u16 = 1;
        const NFTA_CT_KEY: u16 = 2;
        self.with("ct", Attributes::default().number(NFTA_CT_DREG, NFT_REG_1).number(NFTA_CT_KEY, key))
    }

    /// The first packet of a connection.
    pub(super) fn opens_connection(self) -> Rule {
        self.conntrack(NFT_CT_STATE).mask(STATE_NEW).compare(NFT_CMP_NEQ, &[0; 4])
    }

    /// The destination of its connection was translated, or was not.
    pub(super) fn redirected(self, is: bool) -> Rule {
        let operation = if is { NFT_CMP_NEQ } else { NFT_CMP_EQ };
        self.conntrack(NFT_CT_STATUS).mask(IPS_DST_NAT).compare(operation, &[0; 4])
    }

    pub(super) fn count(self) -> Rule {
        self.with("counter", Attributes::default())
    }

    pub(super) fn masquerade(self) -> Rule {
        self.with("masq", Attributes::default())
    }

    fn immediate(self, register: u32, value: Attributes) -> Rule {
        const NFTA_IMMEDIATE_DREG: u16 = 1;
        const NFTA_IMMEDIATE_DATA: u16 = 2;
        let operands =
            Attributes::default().number(NFTA_IMMEDIATE_DREG, register).nested(NFTA_IMMEDIATE_DATA, value);
        self.with("immediate", operands)
    }

    /// On to `address` and, if one is given, to this port.
    pub(super) fn redirect(self, address: IpAddr, port: Option<u16>) -> Rule {
        const NFTA_NAT_TYPE: u16 = 1;
        const NFTA_NAT_FAMILY: u16 = 2;
        const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
        const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
        let mut rule = self.immediate(NFT_REG_1, data(&octets(address)));
        let mut nat = Attributes::default()
            .number(NFTA_NAT_TYPE, NFT_NAT_DNAT)
            .number(NFTA_NAT_FAMILY, family_number(Family::of(address)).into())
            .number(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1);
        if let Some(port) = port {
            rule = rule.immediate(NFT_REG_2, data(&port.to_be_bytes()));
            nat = nat.number(NFTA_NAT_REG_PROTO_MIN, NFT_REG_2);
        }
        rule.with("nat", nat)
    }

    pub(super) fn drop(self) -> Rule {
        let code = Attributes::default().number(NFTA_VERDICT_CODE, NF_DROP);
        self.immediate(NFT_REG_VERDICT, Attributes::default().nested(NFTA_DATA_VERDICT, code))
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
