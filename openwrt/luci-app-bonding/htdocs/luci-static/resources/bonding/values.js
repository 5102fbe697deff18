'use strict';
'require baseclass';

/*
 * How values are written, exactly as the daemon reads them: a form refuses what the daemon would. Each function takes
 * the text of one value and gives the value, or null where it is none.
 */

const U32 = 4294967295n;
const U64 = (1n << 64n) - 1n;

const digits = text => /^[0-9]+$/.test(text) ? BigInt(text) : null;

const within = (number, least, most) => number !== null && number >= least && number <= most ? number : null;

function integer(text) {
	const match = /^0[xX]([0-9a-fA-F]+)$/.exec(text);

	return within(match ? BigInt('0x' + match[1]) : digits(text), 0n, U64);
}

/* A number with a unit: `1.5m`; rounded down to whole units of the smallest. */
function measured(text, factors) {
	const match = /^([0-9]+)(?:\.([0-9]+))?\s*([^0-9.\s].*)?$/s.exec(text);
	const factor = match && Object.prototype.hasOwnProperty.call(factors, match[3] || '') ? factors[match[3] || ''] : null;

	if (!factor || BigInt(match[1]) > U64)
		return null;

	const fraction = (match[2] || '').slice(0, 9);
	const scale = 10n ** BigInt(fraction.length);

	return within((BigInt(match[1]) * scale + BigInt(fraction || 0)) * BigInt(factor) / scale, 0n, U64);
}

/* Of the letters A to Z only. */
const lower = text => text.replace(/[A-Z]/g, letter => letter.toLowerCase());

const rate = text => measured(lower(text).replace(/\/s$/, ''), {
	'': 1000, 'k': 1000, 'kbit': 1000, 'bit': 1, 'm': 1000000, 'mbit': 1000000, 'g': 1000000000, 'gbit': 1000000000
});

/* In microseconds. */
const duration = text => measured(text, {
	'us': 1, 'ms': 1000, '': 1000000, 's': 1000000, 'm': 60000000, 'min': 60000000, 'h': 3600000000, 'd': 86400000000
});

const SIZES = {};

[ '', 'k', 'm', 'g', 't' ].forEach((unit, power) => {
	SIZES[unit] = SIZES[unit + 'b'] = Math.pow(1000, power);

	if (unit)
		SIZES[unit + 'i'] = SIZES[unit + 'ib'] = Math.pow(1024, power);
});

const size = text => measured(lower(text), SIZES);

const port = text => within(digits(text), 1n, 65535n);

function portRange(text) {
	const at = text.search(/[-:]/);
	const [ first, last ] = at < 0 ? [ port(text), port(text) ] : [ port(text.slice(0, at)), port(text.slice(at + 1)) ];

	return first !== null && last !== null && first <= last ? [ first, last ] : null;
}

/* Four numbers without leading zeros, as 32 bits. */
function ipv4(text) {
	const parts = text.split('.');

	if (parts.length !== 4 || !parts.every(part => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) < 256))
		return null;

	return parts.reduce((bits, part) => bits * 256 + Number(part), 0);
}

/* RFC 4291, 2.2: groups of at most four hexadecimal digits, one `::`, an IPv4 address at the end; as 128 bits. */
function ipv6(text) {
	const sides = text.split('::').map(side => side === '' ? [] : side.split(':'));

	if (sides.length > 2)
		return null;

	const last = sides[sides.length - 1];
	const tail = last.length ? ipv4(last[last.length - 1]) : null;

	if (tail !== null)
		last.splice(-1, 1, Math.floor(tail / 65536).toString(16), (tail % 65536).toString(16));

	const [ head, rest ] = [ sides[0], sides[1] || [] ];
	const gap = 8 - head.length - rest.length;

	if (sides.length === 2 ? gap < 1 : gap !== 0)
		return null;

	const groups = head.concat(Array(gap).fill('0'), rest);

	return groups.every(group => /^[0-9a-fA-F]{1,4}$/.test(group))
		? groups.reduce((bits, group) => bits << 16n | BigInt('0x' + group), 0n) : null;
}

const address = text => ipv4(text) ?? ipv6(text);

/* The number of a netmask's ones. */
function netmask(text) {
	const bits = ipv4(text);
	const zeros = bits === null ? null : Math.log2(4294967296 - bits);

	return Number.isInteger(zeros) ? BigInt(32 - zeros) : null;
}

/* An address with a prefix length or netmask after `/`, or alone: `[ bits, host bits ]`. */
function network(text) {
	const at = text.indexOf('/');
	const [ bits, mask ] = at < 0 ? [ text, null ] : [ text.slice(0, at), text.slice(at + 1) ];
	const [ four, six ] = [ ipv4(bits), ipv6(bits) ];

	if (four === null && six === null)
		return null;

	const width = four === null ? 128n : 32n;
	const length = mask === null ? width : digits(mask) ?? (four === null ? null : netmask(mask));

	return within(length, 0n, width) === null ? null : [ six ?? BigInt(four), width - length ];
}

function prefix(text) {
	const [ bits, rest ] = network(text) || [ 1n, 1n ];

	return (bits & (1n << rest) - 1n) === 0n || null;
}

function host(text) {
	if (address(text.replace(/^\[+/, '').replace(/\]+$/, '')) !== null)
		return true;

	const name = text.replace(/\.$/, '');

	/* A name of digits and dots alone is a mistyped address. */
	return name.length <= 253 && !/^[0-9.]*$/.test(name)
		&& name.split('.').every(label => /^(?!-)[A-Za-z0-9_-]{1,63}$/.test(label) && !label.endsWith('-')) || null;
}

const name = text => /^[A-Za-z0-9_.-]{1,64}$/.test(text) || null;

function table(text) {
	if (/^[0-9]/.test(text)) {
		const number = within(integer(text), 1n, U32 - 1n);

		return number !== null && (number < 253n || number > 255n) || null;
	}

	return name(text) && ![ 'main', 'default', 'local', 'unspec' ].includes(text) || null;
}

function mark(text) {
	const at = text.indexOf('/');
	const value = within(integer(at < 0 ? text : text.slice(0, at)), 1n, U32);
	const mask = at < 0 ? U32 : within(integer(text.slice(at + 1)), 0n, U32);

	return value !== null && mask !== null && (value & ~mask) === 0n || null;
}

const dscp = text => within(integer(text), 0n, 63n) !== null
	|| /^(ef|va|le|be|df|cs[0-7]|af[1-4][1-3])$/i.test(text) || null;

const protocol = text => within(digits(text), 0n, 255n) !== null
	|| /^(icmp|igmp|tcp|udp|gre|esp|ah|icmpv6|ipv6-icmp|ospf|sctp|udplite)$/i.test(text) || null;

/* 32 bytes in base64: 43 letters, of the last of which two bits are zero, and the padding. */
const key = text => /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/.test(text) || null;

/* Counted in bytes, as the daemon does. */
const bytes = text => new TextEncoder().encode(text).length;

// eslint-disable-next-line no-control-regex
const path = text => text.startsWith('/') && !/[\u0000-\u001f\u007f-\u009f]/.test(text) && bytes(text) < 4096 || null;

const TYPES = {
	bool: text => /^(1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text) || null,
	integer: (text, option) => within(integer(text), BigInt(option.min), BigInt(option.max)),
	port, portrange: portRange, rate, size,
	duration: (text, option) => within(duration(text), BigInt(option.min_ms) * 1000n, BigInt(option.max_ms) * 1000n),
	ipaddr: address, cidr: network, prefix, netmask, host,
	enum: (text, option) => option.values.some(choice => choice.value === text) || null,
	key, secret: key, path,
	command: text => path(text.trim().split(/\s+/)[0]),
	device: text => /^[!-.0-9;-~]{1,15}$/.test(text) && text !== '.' && text !== '..' || null,
	name, group: name, table, mark, dscp, protocol
};

/* Options that hold an address of one family. */
const IPV4 = [ 'link.ipaddr', 'link.gateway' ];
const IPV6 = [ 'link.ip6addr', 'link.ip6gateway' ];

return baseclass.extend({
	/*
	 * Whether the daemon takes `text` for a value of an option of its schema, in a section of type `section`. A type of
	 * a later daemon is left to it.
	 */
	accepts(section, option, text) {
		const where = section + '.' + option.name;
		const read = TYPES[option.type];
		/* With what Unicode calls white space, as the daemon has it. */
		const value = text.replace(/^[\s\u0085]+|[\s\u0085]+$/g, '');


		/* `<…>` is what a manual has where a value belongs. */
		if (/^<.+>$/s.test(value) || (value.includes(':') ? IPV4 : IPV6).includes(where))
			return false;

		return !read || read(value, option) !== null;
	},

	knows: type => type in TYPES
});
