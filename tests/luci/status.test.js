/* The status page and the overview's widget over a real bond whose lines are cut and restored while the page is open. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';

import { Browser, Server, Stage, picture, show, until } from './bench.js';
import { LANGUAGES, readTranslation } from './catalog.js';
import { ROOT } from './paths.js';

let stage, server, browser;

before(async () => {
	[ stage, browser ] = await Promise.all([ Stage.open(), Browser.open() ]);
	server = await new Server(stage.client).open();
}, { timeout: 180000 });

after(async () => {
	server?.close();
	await browser?.close();
	await stage?.close();
});

/* Every test finds both lines whole, and may replace answers. */
afterEach(async () => {
	Object.assign(server, { answers: {}, config: stage.client, allowed: null });
	await stage.order('restore 1');
	await stage.order('restore 2');
});

const state = (page, link) => page.locator(`.bd-link[data-link=${link}]`).getAttribute('data-state');
/* On a machine with much else to do a link is now and then late with an answer. */
const carries = async (page, link) => await page.locator('.bd-link').count() > 0 && [ 'up', 'suspect' ].includes(await state(page, link));
const word = (page, link) => page.locator(`.bd-link[data-link=${link}] .bd-word`).textContent();
const trouble = page => page.locator('[data-trouble]').getAttribute('data-trouble');

/* Opens the status page with `answers` in place of methods of the daemon. */
async function statusPage(options = {}, answers = {}, config = stage.client) {
	Object.assign(server, { answers, config });

	const page = await browser.page(options);

	await show(page, server, 'view.bonding.status', options);

	return page;
}

async function leave(page) {
	assert.deepEqual(page.complaints, []);
	await page.context().close();
}

test('a bond at work, and its lines going down and up', { timeout: 360000 }, async () => {
	const page = await statusPage();

	await until('both links are up', async () => await carries(page, 'line1') && await carries(page, 'line2'));
	assert.match(await page.locator('.bd-verdict').textContent(), /Online through the bond/);
	await until('it counts them', async () => /2 of 2 links up/.test(await page.locator('.bd-head').textContent()));

	/* The emulated lines carry 20 and 8 Mbit/s. */
	await stage.order('download 12');
	await until('the page shows more than one line carries', async () => {
		const [ , number, unit ] = /([\d.]+) (\w+)/.exec(await page.locator('[data-figure=rx] .bd-figure').textContent());

		return unit === 'Mbit' && Number(number) > 20.5;
	});

	const share = page.locator('.bd-link[data-link=line1] .bd-pairs');

	assert.match(await share.textContent(), /Share[\d.]+ %/);
	assert.ok(await page.locator('.bd-chart path[data-way=rx][data-link=line2]').count() > 0, 'the chart has both links');
	await page.waitForTimeout(2500);
	await picture(page, 'status-up', [ [ 1280, false ], [ 1280, true ], [ 360, false ], [ 360, true ] ]);
	await page.setViewportSize({ width: 1280, height: 900 });

	await stage.order('cut 2');
	await until('the cut line is down', async () => await state(page, 'line2') === 'down');
	assert.equal(await word(page, 'line2'), 'Down');
	assert.ok(await carries(page, 'line1'));
	assert.match(await page.locator('.bd-link[data-link=line2]').textContent(), /no answer|does not answer/);
	assert.match(await page.locator('.bd-events').textContent(), /line2.*Down/s);
	await picture(page, 'status-cut');
	await page.setViewportSize({ width: 1280, height: 900 });

	await stage.order('restore 2');
	await until('the line is back', () => carries(page, 'line2'), 90);
	await leave(page);
});

test('the buttons act', { timeout: 180000 }, async () => {
	const page = await statusPage();
	const button = (link, action) => page.locator(`.bd-link[data-link=${link}] [data-action=${action}]`);

	await until('both links are up', async () => await carries(page, 'line1') && await carries(page, 'line2'));
	assert.equal(await button('line1', 'up').isVisible(), false, 'nothing to put back');

	await button('line1', 'down').click();
	await until('line1 is taken out', async () => await state(page, 'line1') === 'disabled');
	assert.equal(await word(page, 'line1'), 'Taken out');
	assert.equal(await button('line1', 'down').isVisible(), false);
	await button('line1', 'up').click();
	await until('line1 is back', () => carries(page, 'line1'));

	await button('line2', 'reconnect').click();
	await until('the event is shown', async () => /reconnect|asked for by hand/i.test(await page.locator('.bd-events').textContent()));
	await until('line2 is up again', () => carries(page, 'line2'));

	/* With every link taken out there is a page that offers to put them back. */
	await button('line1', 'down').click();
	await button('line2', 'down').click();
	await until('every link is out', async () => await page.locator('[data-trouble]').count() && await trouble(page) === 'no-link');
	await page.getByRole('button', { name: 'line1' }).click();
	await until('the bond is back', () => carries(page, 'line1'));
	await button('line2', 'up').click();
	await until('both links are up', () => carries(page, 'line2'));
	await leave(page);
});

test('a refusal of the daemon is shown', { timeout: 90000 }, async () => {
	const page = await statusPage({}, { link: { ok: false, error: 'there is <b>no</b> link of that name' } });

	await page.locator('.bd-link[data-link=line1] [data-action=reconnect]').click();
	assert.equal(await page.locator('[role=alert]').textContent(), 'there is <b>no</b> link of that name', 'as text and not as HTML');
	await leave(page);
});

test('a speed test, as far as it is', { timeout: 90000 }, async () => {
	const progress = (link, phase, rate, share) => ({ phase, progress: share, link, rate });
	const result = (link, direction, rate) => ({ phase: direction, link, direction, bits_per_second: rate, bytes: rate });
	const reports = [
		[ { phase: 'latency', progress: 0, measurements: 4, seconds: 20 } ],
		[ progress(null, 'download', 21.4e6, 0.2) ],
		[ result(null, 'download', 26.4e6), progress(null, 'upload', 1.5e6, 0.4) ],
		[ result(null, 'upload', 1.62e6), result('line1', 'download', 19e6), result('line1', 'upload', 0.9e6),
			{ phase: 'done', progress: 1, download: 26.4e6, upload: 1.62e6, idle_ms: 31, loaded_ms: 38.6, results: [] } ]
	];
	let asked = 0;
	let known = 2;
	const page = await statusPage({}, {
		speedtest_start: { ok: true },
		speedtest_status: () => {
			asked++;

			return { ok: true, running: known < 4, reports: reports.slice(0, known).flat(), error: '' };
		}
	});
	const card = page.locator('[data-test]');

	assert.equal(await card.isVisible(), false);
	await page.getByRole('button', { name: 'Speed test' }).click();
	await until('it says what it does', async () => /Measuring the download: Bond · 21\.4 Mbit\/s/.test(await card.textContent()), 90, () => card.textContent());
	known = 4;
	await until('it shows the result', async () => /Bond↓ 26\.4 Mbit\/s · ↑ 1\.62 Mbit\/sline1↓ 19\.0 Mbit\/s · ↑ 900 kbit\/sDelay31 ms, under load 39 ms/.test(await card.textContent()), 90, () => card.textContent());
	await picture(page, 'status-speedtest');

	const soFar = asked;

	await page.waitForTimeout(1500);
	assert.equal(asked, soFar, 'nobody asks for it any more');

	/* One that fails says why. */
	server.answers.speedtest_status = { ok: true, running: false, reports: [ { phase: 'latency', progress: 0 } ], error: 'bonding: speedtest: bond: 10.77.0.1:5511: timed out' };
	await page.getByRole('button', { name: 'Speed test' }).click();
	await until('it says why', async () => /failed: bond: 10\.77\.0\.1:5511: timed out/.test(await card.textContent()), 90, () => card.textContent());
	await leave(page);
});

test('in other languages, on a narrow screen too', { timeout: 90000 }, async () => {
	for (const language of LANGUAGES) {
		const page = await statusPage({ translations: readTranslation(language) });

		await until('it is shown', () => carries(page, 'line1'));
		assert.match(await page.locator('.bd-head').textContent(), language === 'fr' ? /En ligne par l’agrégat/ : /Online über das Bündel/);
		await picture(page, `status-${language}`, [ [ 360, false ] ]);
		await leave(page);
	}
});

test('a reader sees everything and has no buttons', { timeout: 90000 }, async () => {
	server.allowed = [ 'status', 'events', 'speedtest_status' ];

	const page = await statusPage({ readonly: true });

	await until('the links are shown', async () => await page.locator('.bd-link').count() === 2);
	assert.equal(await page.locator('.bd button:not([data-show])').count(), 0);
	await leave(page);
});

test('one call a tick, and none while the page is hidden', { timeout: 90000 }, async () => {
	const page = await statusPage();
	const calls = () => page.evaluate(() => window.standin.calls);

	await until('some ticks', async () => (await calls()).status > 4);
	assert.deepEqual(Object.keys(await calls()), [ 'status' ]);

	await page.evaluate(() => {
		Object.defineProperty(document, 'hidden', { configurable: true, get: () => true });
		document.dispatchEvent(new Event('visibilitychange'));
	});
	await page.waitForTimeout(600);

	const soFar = (await calls()).status;

	await page.waitForTimeout(2000);
	assert.equal((await calls()).status, soFar, 'no call while hidden');
	await page.evaluate(() => {
		Object.defineProperty(document, 'hidden', { configurable: true, get: () => false });
		document.dispatchEvent(new Event('visibilitychange'));
	});
	await until('it goes on', async () => (await calls()).status > soFar);
	await leave(page);
});

test('at the server\'s end', { timeout: 90000 }, async () => {
	const page = await statusPage({}, {}, stage.server);

	await until('its router is there', async () => /1 of 1 routers connected/.test(await page.locator('.bd-head').textContent()), 90, () => page.locator('#maincontent').innerText());
	await until('with its links', async () => await page.locator('.bd-link').count() === 2);
	assert.equal(await page.locator('.bd-link button').count(), 0, 'the client\'s links are the client\'s');
	await picture(page, 'status-server');
	await leave(page);
});

test('the widget of the overview', { timeout: 180000 }, async () => {
	const page = await browser.page();

	await show(page, server, 'view.status.include.35_bonding');
	await until('one line a link', async () => await page.locator('[data-link]').count() === 2);
	await until('with figures', async () => /line1Up↓ .*it\/s · ↑ .*ms/.test(await page.locator('[data-link=line1]').textContent()), 90, () => page.locator('#maincontent').innerText());
	await picture(page, 'overview');
	await page.setViewportSize({ width: 1280, height: 900 });
	await stage.order('cut 1');
	await until('it says so', async () => /Down/.test(await page.locator('[data-link=line1]').textContent()));
	await stage.order('restore 1');
	await until('and that it is back', async () => /Up/.test(await page.locator('[data-link=line1]').textContent()), 90);
	await leave(page);
});

/* What the page says in each state, and what it must name. The daemon's answer is the real one where it can be had. */
const FIRST = fs.readFileSync(path.join(ROOT, 'files/etc/config/bonding'), 'utf8');

function file(name, text) {
	const where = path.join(server.state, name);

	fs.writeFileSync(where, text, { mode: 0o600 });

	return where;
}

async function expectTrouble(id, pattern, { answers = {}, config = stage.client, options = {} } = {}) {
	const page = await statusPage(options, answers, config);

	await until(`the page says ${id}`, async () => await page.locator('[data-trouble]').count() && await trouble(page) === id, 90, () => page.locator('#maincontent').innerText());
	assert.match(await page.locator('[data-trouble]').textContent(), pattern);
	await picture(page, `trouble-${id}`);
	await leave(page);
}

test('not set up', { timeout: 90000 }, () => expectTrouble('not-configured', /add-peer NAME.*Set up the bond/s, { config: file('first', FIRST) }));

test('mistakes in the configuration', { timeout: 90000 }, () => {
	const text = fs.readFileSync(stage.client, 'utf8').replace(/option policy .*|$/, "option policy 'bananas'\n");

	return expectTrouble('invalid', /bananas/, { config: file('wrong', text) });
});

test('switched off', { timeout: 90000 }, () => {
	const text = fs.readFileSync(stage.client, 'utf8').replace("option enabled '1'", "option enabled '0'")
		.replace(/control_socket '.*'/, "control_socket '/nonexistent/socket'");

	return expectTrouble('disabled', /not enabled/, { config: file('off', text) });
});

test('the daemon has ended', { timeout: 90000 }, async () => {
	const answer = { running: false, program: '1.0.0', error: 'no daemon', config: '/etc/config/bonding', valid: true, enabled: true, configured: true, problems: [], time_ms: Date.now(),
		log: [ 'Sat Nov 21 07:00:00 2026 daemon.err bonding[812]: cannot open /dev/net/tun: No such device' ] };

	await expectTrouble('stopped', /cannot open \/dev\/net\/tun/, { answers: { status: answer } });
});

test('rpcd does not know the object', { timeout: 90000 }, () =>
	expectTrouble('no-object', /Access denied/, { answers: { status: () => {
		throw new Error('Access denied');
	} } }));

test('the server has ended, and comes back', { timeout: 270000 }, async () => {
	const page = await statusPage();

	await stage.order('stop server');
	await until('the page says so', async () => await page.locator('[data-trouble]').count() && await trouble(page) === 'no-answer', 90);

	const text = await page.locator('[data-trouble]').textContent();

	assert.match(text, /203\.0\.113\.1/, 'the address that was asked');
	assert.match(text, /UDP port.*public key/is);
	await picture(page, 'trouble-no-answer');

	/* From its answer, states that a laboratory without a clock and without an older program cannot have. */
	const silent = await page.evaluate(() => L.require('bonding.bond').then(bond => bond.status(0)));

	await leave(page);
	await expectTrouble('clock', /on the router and/, { answers: { status: { ...silent, time_ms: 86400000 } } });
	await expectTrouble('wrong-key', /do not match/, { answers: { status: { ...silent, endpoint: { ...silent.endpoint, drops: { 'handshake undecryptable': 3 } } } } });
	await expectTrouble('version', /another version/, { answers: { status: { ...silent, events: [ { number: 999, age_ms: 10, unix_ms: Date.now(), peer: 'server', link: null, what: 'handshake failed', why: 'the server speaks protocol version 2' } ] } } });

	const links = Object.fromEntries(Object.entries(silent.links).map(([ name, link ]) => [ name, { ...link, note: 'no address or route' } ]));

	await expectTrouble('no-wan', /None of the lines has an address/, { answers: { status: { ...silent, links } } });

	await stage.order('start server');

	const again = await statusPage();

	await until('the bond is up again', async () => await again.locator('.bd-link').count() === 2, 90);
	await leave(again);
});

test('quota, watchdog, clocks, other servers and kernel mode are told', { timeout: 90000 }, async () => {
	const real = await until('both links are up', async () => {
		const status = await server.answer('/ubus', { object: 'bonding', method: 'status', params: { after: 0 } });

		return status.endpoint.peers[0].links.every(link => [ 'up', 'suspect' ].includes(link.state)) && status;
	});
	const quota = { used: 42.5e9, quota: 50e9, since: '2026-11-01', used_up: false };
	const page = await statusPage({}, { status: {
		...real, time_ms: Date.now() - 3600000,
		links: { ...real.links, line2: { ...real.links.line2, quota } },
		servers: [
			{ name: 'paris', in_use: false, since_ms: null, answers: false, heard_ms: 125000 },
			{ name: 'lyon', in_use: true, since_ms: 65000, answers: true, heard_ms: 0 },
			{ name: 'berlin', in_use: false, since_ms: null, answers: true, heard_ms: 0 },
			{ name: 'wien', in_use: false, since_ms: null, answers: null, heard_ms: null }
		],
		kernel: {
			bond_mode: 'balance-rr', tunnel_type: 'tap', problems: [ 'there is no room for a device' ],
			slaves: [ { link: 0, device: 'bond0-line1', carrier: true }, { link: 1, device: 'bond0-line2', carrier: false } ]
		},
		watchdog: { addresses: [ '9.9.9.9' ], state: 'silent', last_answer_ms: 12000, rtt_ms: 31.2, error: 'no answer', actions: 0, next_action_ms: 18000 },
		reload: { ok: false, details: [ 'line 12: policy: not one of adaptive, …' ] }
	} });

	await until('the quota is shown', async () => /42\.5 GB of 50\.0 GB/.test(await page.locator('.bd-link[data-link=line2]').textContent()));

	const notes = await page.locator('.alert-message').allTextContents();

	assert.equal(notes.length, 4, 'kernel mode, configuration, clock and watchdog');
	assert.match(await page.locator('.bd-head').textContent(), / · at lyon/);
	assert.match(await page.locator('.bd-details').textContent(), new RegExp([
		'Server parison standby · silent, answered 2 min 5 s ago', 'Server lyonin use for 1 min 5 s',
		'Server berlinon standby · answers', 'Server wienon standby · has never answered'
	].join('.*')));
	assert.match(await page.locator('.bd-details').textContent(), /Kernel modebalance-rr · bond0-line1: carrier · bond0-line2: no carrier/);
	await picture(page, 'status-notes');
	await leave(page);
});
