/* The forms take the same values as the daemon: each option of the schema, with values that are right, wrong and odd. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

import { ubus } from './bench.js';
import { loadModule } from './modules.js';

const KEY = 'xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=';

const ODD = [ ' ', '-', '-1', '+1', '0', '00', '1', '01', '2', '5', '6', '12', '31', '32', '63', '64', '99', '100', '155', '252', '253', '254', '255', '256', '1000', '1001', '1280', '1500',
	'9000', '9001', '32000', '32001', '60000', '60001', '65535', '65536', '4000000000', '4000000001', '4294967294', '4294967295', '4294967296', '18446744073709551615', '18446744073709551616',
	'99999999999999999999999', '0x', '0x0', '0x10', '0XfF', '0x+1', '0xg', '1e3', '1.5', '1.', '.5', '1.2.3', '١', 'true', 'TRUE', 'on', 'off', 'yes', 'no', 'enabled', 'disabled', 'On', '<name>', '<>', 'a<b>' ];

const RATES = [ '10mbit', '1.5m', '800k', '64000bit', '10 mbit', '10mbit/s', '10MBIT/S', '10Mbps', '10mb', '1gbit', '1.0000000001g', '18446744073709551g', '18446744073709552k', '10K', '10\u212a', '10//s', '/s', 'k',
	'99999999999999999999.999999999gbit', '18446744073709551615.999999999gbit', '10kbit kbit' ];

const TIMES = [ '500ms', '99ms', '100ms', '999ms', '1000ms', '1s', '0.9999999', '0.999', '1m', '60m', '61m', '1min', '2h', '24h', '25h', '1d', '2d', '60s', '60.000001', '60000us', '1000000us', '3600', '3601', '86400', '86401', '1 m',
	'1M', '1sec', '5 0', 'ms' ];

const SIZES = [ '10G', '500M', '1.5GiB', '1kB', '1KIB', '1b', '1bb', '1 GB', '16777216T', '18446744T', '18446745T', '18446744073709551615.9T', '1.5.5G', '1Gi B', '1P' ];

const ADDRESSES = [ '10.0.0.2', '10.0.0.02', '256.0.0.1', '10.0.0', '10.0.0.2.3', '10.0.0.2/24', '10.0.0.0/24', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/255.255.255.0', '10.0.0.0/255.0.255.0', '0.0.0.0/0', '0.0.0.0/0.0.0.0',
	'10.0.0.2/32', '10.0.0.2/032', '::', '::/0', '::1', '::1/128', '1::', 'fd00::2/64', 'fd00::/48', 'fd00::/8', 'fd00::/129', 'fd00:::1', 'fd00::1::2', '1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7::', '::2:3:4:5:6:7:8', '1:2:3:4::5:6:7:8', '1:2:3:4:5:6:7',
	'1:2:3:4:5:6:7:8:9', '12345::', '::ffff:1.2.3.4', '::1.2.3', '1:2:3:4:5:6:1.2.3.4', '1:2:3:4:5:6:7:1.2.3.4', '1.2.3.4::', '::1.2.3.4:5', 'fe80::1%eth0', '[::1]', '[[::1]]', '[10.0.0.1]', 'fd00::/ffff::', ':', ':1', '1:',
	'192.168.1.0/24', '192.168.1.1/24', '192.168.1.128/25', '192.168.1.64/25', '255.255.255.0', '255.255.255.255', '0.0.0.0', '255.0.255.0', '128.0.0.0', '255.255.255.254', '127.255.255.255', '240.0.0.0', '0.0.0.1' ];

const NAMES = [ 'eth0', 'wan', 'wan.6', 'wan-6', 'pppoe-wan', 'a b', 'a/b', 'a:b', '.', '..', '...', 'exactly15bytes!', 'sixteen_bytes_16', 'é', 'x'.repeat(64), 'x'.repeat(65), 'a@b', 'a~b', 'a\'b', 'a"b', 'a\\b', '#a', 'main', 'default', 'local', 'unspec', 'Main',
	'vpn.example.com', 'vpn.example.com.', 'vpn..example', '-a.example', 'a-.example', 'a_b.example', 'a.b:5510', '1.2.3', '1a.2', `${'a'.repeat(63)}.example`, `${'a'.repeat(64)}.example`, `${'abc.'.repeat(63)}d`, `${'abc.'.repeat(63)}de`, 'xn--bcher-kva.example', 'bücher.example' ];

const PORTS = [ '80-90', '90-80', '80:90', '80-90-100', '80-', '-80', '0-5', '65535-65535', '1-65536', '80 - 90' ];

const MARKS = [ '0x100/0xff00', '0x1ff/0xff00', '0xff', '0xffffffff', '0x100000000', '1/0', '0/1', '1/', '/1', '1/1/1', '256/0xff00', '0xb1000000/0xff000000' ];

const CLASSES = [ 'cs0', 'cs7', 'cs8', 'CS1', 'af11', 'af43', 'af44', 'af10', 'af51', 'AF41', 'ef', 'EF', 'va', 'le', 'be', 'df', 'voice', 'cs', 'af1', 'cs11', '0x2e', '0x40' ];

const PROTOCOLS = [ 'tcp', 'UDP', 'icmp', 'icmpv6', 'ipv6-icmp', 'gre', 'esp', 'ah', 'ospf', 'sctp', 'udplite', 'igmp', 'http', 'all', 'tcpudp', '00006' ];

const KEYS = [ KEY, KEY.slice(0, -1), KEY + '=', KEY.replace('8Dg=', '8Dh='), KEY.replace('8Dg=', '8D8='), KEY.replace('x', '-'), `=${KEY.slice(1)}`, 'A'.repeat(44), 'A'.repeat(43) + '=', KEY.replace('Dg=', 'D\u00e9') ];

const PATHS = [ '/', '/etc/bonding/up.sh', 'etc/bonding', './a', '/a b', '/é', `/${'a'.repeat(4094)}`, `/${'a'.repeat(4095)}`, `/${'é'.repeat(2047)}`, `/${'é'.repeat(2048)}`, '/a\u007f', '/a\u0085', '/etc/init.d/bonding restart', 'reboot now', '//' ];

const ALL = [ ODD, RATES, TIMES, SIZES, ADDRESSES, NAMES, PORTS, MARKS, CLASSES, PROTOCOLS, KEYS, PATHS ].flat();

/* The start of a complaint about one value, as against one about how options go together. */
const COMPLAINT = /^('.*' is (not |a placeholder|an address in a network)|the value is not )/s;

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bonding-values-'));
const nowhere = path.join(folder, 'none');

after(() => fs.rmSync(folder, { recursive: true }));

const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;

/* Which of `values` the daemon refuses: each stands in a section, or in a list's line, of its own. */
async function refused(section, option, values) {
	const found = new Set();
	const at = new Map();
	const lines = [];
	const inOne = section.single && option.list;

	if (inOne)
		lines.push(`config ${section.type} 'one'`);

	values.forEach((value, index) => {
		if (!inOne)
			lines.push(`config ${section.type} ${section.single ? "'one'" : `'s${index}'`}`);

		lines.push(`\t${option.list ? 'list' : 'option'} ${option.name} ${quoted(value)}`);
		at.set(lines.length, value);
	});

	const { problems } = await ubus(nowhere, folder, 'check', { config: lines.join('\n') + '\n' });

	for (const problem of problems)
		if (problem.option === option.name && problem.severity === 'error' && COMPLAINT.test(problem.message))
			found.add(at.get(problem.line));

	return found;
}

test('each option takes in the form what it takes in the daemon', { timeout: 540000 }, async () => {
	const values = loadModule('bonding/values.js');
	const { sections } = await ubus(nowhere, folder, 'options');
	const wrong = [];
	const seen = new Set();
	let asked = 0;

	/* Options of one type with one range have one reader: all but the first get fewer values. */
	const kind = option => JSON.stringify([ option.type, /^(ip6?addr|ip6?gateway|gateway)$/.test(option.name) ? option.name : '', option.min, option.max, option.min_ms, option.max_ms, option.values ]);
	const compare = async (section, option, list) => {
		const no = await refused(section, option, list);

		for (const value of list) {
			/* A list's words are each a value. */
			const words = option.list && value.trim() ? value.trim().split(/\s+/) : [ value ];
			const taken = words.every(word => values.accepts(section.type, option, word));

			asked++;

			if (value.trim() && taken === no.has(value))
				wrong.push(`${section.type}.${option.name} (${option.type}): form and daemon differ on ${JSON.stringify(value.slice(0, 80))}: the daemon ${taken ? 'refuses' : 'takes'} it`);
		}
	};

	for (const section of sections) {
		for (const option of section.options) {
			assert.ok(values.knows(option.type), `the form does not know the type ${option.type}`);

			const all = [ ...(option.values || []).map(choice => choice.value), ...(option.default ? [ option.default ] : []), ...ALL ];
			const own = seen.has(kind(option)) ? all.filter((_value, index) => index % 16 === seen.size % 16) : all;
			/* How many go into one file: the daemon reads some sections of a kind, and one value of an option. */
			const many = section.type === 'server' ? 4 : option.list ? 60 : section.single ? 1 : 16;
			const parts = [];

			for (let next = 0; next < own.length; next += many)
				parts.push(own.slice(next, next + many));

			for (let next = 0; next < parts.length; next += 4)
				await Promise.all(parts.slice(next, next + 4).map(part => compare(section, option, part)));

			seen.add(kind(option));
		}
	}

	assert.deepEqual(wrong, []);
	assert.ok(asked > 5000, `${asked} values were compared`);
});
