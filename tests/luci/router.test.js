/* The pages in the real LuCI of a real OpenWrt, with a real bond to a server: `make test-luci ROOTFS=…`. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Browser, picture, until } from './bench.js';
import { Router, missing } from './router.js';

const skip = missing() || false;
const LUCI = 'http://192.168.1.1/cgi-bin/luci';

/* What LuCI's console has without these pages. */
const NOISE = [ /403 \(Forbidden\).*\/cgi-bin\/luci/, /404 \(Not Found\).*\/protocol\/\w+\.js/, /404 \(Not Found\).*favicon/, /net::ERR_ABORTED/ ];

let router, browser, line;

before(async () => {
	if (skip)
		return;

	router = await Router.boot();
	await router.install();
	line = await router.serve();
	browser = await Browser.open(program => router.browser(program));
	/* A second account, which may look and change nothing: as docs/luci.md has it. */
	await router.run(`uci batch <<-E
		add rpcd login
		set rpcd.@login[-1].username=reader
		set rpcd.@login[-1].password='$(uhttpd -m secret)'
		add_list rpcd.@login[-1].read='luci-base'
		add_list rpcd.@login[-1].read='luci-base-network-status'
		add_list rpcd.@login[-1].read='luci-mod-status-index'
		add_list rpcd.@login[-1].read='luci-app-bonding'
		commit rpcd
	E
	/etc/init.d/rpcd restart`);
	await until('rpcd is back', () => router.run('ubus list bonding').catch(() => ''));
}, { timeout: 540000 });

after(async () => {
	await browser?.close();
	await router?.close();
}, { timeout: 90000 });

async function logIn(user = 'root', password = '', { where = '', ...options } = {}) {
	const page = await browser.page(options);

	await page.goto(LUCI + where);
	await page.fill('input[name=luci_username]', user);
	await page.fill('input[name=luci_password]', password);
	await page.press('input[name=luci_password]', 'Enter');
	await page.waitForSelector('#topmenu, #mainmenu, .main-left, header .nav');

	return page;
}

const open = async (page, where, selector) => {
	await page.goto(`${LUCI}/admin/${where}`);
	await page.waitForSelector(selector);
};

const links = page => page.locator('.bd-link').evaluateAll(rows => rows.map(row => [ row.dataset.link, row.dataset.state ]));
const carry = async page => (await links(page)).filter(([ , state ]) => state === 'up').map(([ name ]) => name).join(' ');

/* A call past the pages, with their session: `{ code, answer }`, the code that of uhttpd or of ubus. */
const ubus = (page, object, method, params) => page.evaluate(async words => {
	try {
		const reply = await fetch(L.env.ubuspath || '/ubus', { method: 'POST', body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'call', params: [ L.env.sessionid, ...words ] }) });
		const { error, result } = await reply.json();

		return { code: error?.code ?? result[0], answer: result?.[1] };
	}
	catch (error) {
		/* uhttpd takes no more than 64 KB. */
		return { code: error.message };
	}
}, [ object, method, params ]);

/* The router's private key, and what it shares with the server. */
async function secrets() {
	const found = (await router.run('cat /etc/bonding/private.key; uci -q get bonding.bond.preshared_key')).trim().split('\n');

	assert.equal(found.length, 2);
	found.forEach(secret => assert.match(secret, /^.{43}=$/));

	return found;
}

async function leave(page) {
	assert.deepEqual(page.complaints.filter(text => !NOISE.some(pattern => pattern.test(text))), []);
	await page.context().close();
}

test('before anything is set up', { skip, timeout: 180000 }, async () => {
	const page = await logIn();

	await open(page, 'network/bonding/status', '[data-trouble]');
	assert.equal(await page.locator('[data-trouble]').getAttribute('data-trouble'), 'not-configured');
	await picture(page, 'luci-not-configured');
	await page.getByText('Set up the bond').click();
	await page.waitForURL(/bonding\/config/);
	await leave(page);
});

test('joining with one line, and both links come up', { skip, timeout: 270000 }, async () => {
	const page = await logIn();

	await open(page, 'network/bonding/config', '.bd-join');

	const wans = page.locator('.bd-wans input');

	assert.deepEqual(await wans.evaluateAll(boxes => boxes.map(box => [ box.value, box.checked ])), [ [ 'wan0', true ], [ 'wan1', true ] ]);
	await picture(page, 'luci-join');
	await page.locator('.bd-join textarea').fill(line);
	await page.locator('.bd-join').getByRole('button', { name: 'Join' }).click();
	await until('it has joined', async () => /has joined/.test(await page.locator('.bd-joined').textContent()), 90, () => page.locator('.bd-join').innerText());
	await page.getByText('See the status').click();
	await page.waitForURL(/bonding\/status/);
	await until('both links are up', async () => await carry(page) === 'wan0 wan1', 90, () => page.locator('#maincontent').innerText());
	await page.waitForTimeout(4000);
	await picture(page, 'luci-status', [ [ 1280, false ], [ 1280, true ], [ 360, false ], [ 360, true ] ]);
	await leave(page);
});

test('a cut line is seen', { skip, timeout: 270000 }, async () => {
	const page = await logIn();

	await open(page, 'network/bonding/status', '.bd-link');
	await router.inet('ip', 'link', 'set', 'wan2', 'down');
	await until('wan1 is down', async () => (await links(page)).some(([ name, state ]) => name === 'wan1' && state === 'down'), 90);
	assert.equal(await carry(page), 'wan0');
	await picture(page, 'luci-cut');
	await router.inet('ip', 'link', 'set', 'wan2', 'up');
	await until('it is back', async () => await carry(page) === 'wan0 wan1', 90);
	await leave(page);
});

test('a link is taken out and put back by button', { skip, timeout: 180000 }, async () => {
	const page = await logIn();
	const button = action => page.locator(`.bd-link[data-link=wan0] [data-action=${action}]`);

	await open(page, 'network/bonding/status', '.bd-link');
	await button('down').click();
	await until('it is out', async () => (await links(page)).some(([ name, state ]) => name === 'wan0' && state === 'disabled'));
	assert.equal((await router.status()).links.wan0.taken_out, true);
	await button('up').click();
	await until('it is back', async () => await carry(page) === 'wan0 wan1', 90);
	await leave(page);
});

test('the speed is tested', { skip, timeout: 270000 }, async () => {
	const page = await logIn();
	const card = page.locator('[data-test]');

	await open(page, 'network/bonding/status', '.bd-link');
	await page.getByRole('button', { name: 'Speed test' }).click();
	await until('it is under way', async () => /Measuring the download: Bond/.test(await card.textContent()), 90, () => card.textContent());
	await until('it shows what bond and links carry', async () => /Bond↓ .*it\/s · ↑ .*wan0↓ .*it\/s · ↑ .*wan1↓ .*it\/s · ↑ /.test(await card.textContent()), 60, () => card.textContent());
	await picture(page, 'luci-speedtest');
	await leave(page);
});

test('Save & Apply changes an option without a pause', { skip, timeout: 360000 }, async () => {
	const page = await logIn();
	const old = await router.status();

	await open(page, 'network/bonding/config', '.cbi-map [data-tab=interface]');
	await page.locator('.cbi-tabmenu [data-tab=interface] a').click();
	await page.locator('.cbi-tabmenu [data-tab=traffic] a').click();

	const policy = page.locator('[data-name=policy] select').first();

	await policy.selectOption('round-robin');
	await picture(page, 'luci-config', [ [ 1280, false ], [ 1280, true ], [ 360, false ], [ 360, true ] ]);
	await page.setViewportSize({ width: 1280, height: 900 });

	/* A wrong value is marked in the field, and LuCI saves nothing. */
	const mtu = page.locator('[data-name=mtu] input').first();

	await mtu.fill('70000');
	await mtu.press('Tab');
	await until('it is marked', async () => /cbi-input-invalid/.test(await mtu.getAttribute('class')));
	await mtu.fill('');
	await mtu.press('Tab');

	const ping = router.run('ping -c 15 -W 2 10.77.0.1').catch(error => error.message);

	await page.locator('.cbi-page-actions .cbi-button-apply').first().click();

	/* The browser has reached the router again, and so there is nothing to roll back. */
	await until('LuCI says that it is done', async () => /Configuration changes applied/.test(await page.locator('body').textContent()), 60);

	const status = await until('the daemon has taken it', async () => {
		const now = await router.status().catch(() => null);

		return now?.endpoint?.peers[0]?.policy === 'round-robin' && now;
	}, 60);

	assert.equal(status.pid, old.pid, 'the same process');
	assert.ok(status.endpoint.peers[0].since_ms > old.endpoint.peers[0].since_ms, 'and the same session');
	assert.match(await ping, / 0% packet loss/);
	assert.equal((await router.run('uci get bonding.bond.policy')).trim(), 'round-robin');
	await leave(page);
});

/* LuCI waits 90 seconds at least. */
test('a change after which the browser does not come back is taken back, without a pause', { skip, timeout: 720000 }, async () => {
	const page = await logIn();
	const old = await router.status();
	const policy = async () => (await router.status().catch(() => null))?.endpoint?.peers[0]?.policy;

	await open(page, 'network/bonding/config', '.cbi-map [data-tab=interface]');
	await page.locator('.cbi-tabmenu [data-tab=interface] a').click();
	await page.locator('.cbi-tabmenu [data-tab=traffic] a').click();
	await page.locator('[data-name=policy] select').first().selectOption('flow');

	const ping = router.run('ping -c 120 -W 2 10.77.0.1', null, 200).catch(error => error.message);
	const sent = page.waitForResponse(/apply_rollback/);

	await page.locator('.cbi-page-actions .cbi-button-apply').first().click();
	await sent;
	await router.lan('ip', 'link', 'set', 'lan0', 'down');

	try {
		await until('the daemon has taken the change', async () => await policy() === 'flow', 60);
		await until('the old configuration is back', async () => /round-robin/.test(await router.run('uci get bonding.bond.policy')), 120);
		await until('and the daemon has taken that', async () => await policy() === 'round-robin', 90);
	}
	finally {
		await router.lan('ip', 'link', 'set', 'lan0', 'up');
		await router.lan('ip', 'route', 'replace', 'default', 'via', '192.168.1.1');
	}

	assert.match(await ping, / 0% packet loss/);

	const now = await router.status();

	assert.equal(now.pid, old.pid, 'the same process');
	assert.ok(now.endpoint.peers[0].since_ms > old.endpoint.peers[0].since_ms + 90000, 'and the same session');
	await page.context().close();

	const again = await logIn();

	await open(again, 'network/bonding/config', '.cbi-map [data-tab=interface]');
	assert.equal(await again.locator('[data-name=policy] select').first().inputValue(), 'round-robin');
	assert.equal(await again.locator('[data-indicator=uci-changes]').count(), 0, 'nothing waits to be applied');
	await leave(again);
});

test('in French, and in German', { skip, timeout: 180000 }, async () => {
	for (const [ locale, words, help ] of [ [ 'fr-FR', 'En ligne par l’agrégat', 'Comment le trafic est réparti' ], [ 'de-DE', 'Online über das Bündel', 'Wie der Verkehr' ] ]) {
		const page = await logIn('root', '', { locale });

		await open(page, 'network/bonding/status', '.bd-link');
		assert.match(await page.locator('.bd-verdict').textContent(), new RegExp(words));
		await picture(page, `luci-status-${locale}`);
		await open(page, 'network/bonding/config', '.cbi-map [data-tab=interface]');
		assert.match(await page.locator('#maincontent').textContent(), new RegExp(help));
		await leave(page);
	}
});

test('the overview has a line for each link', { skip, timeout: 180000 }, async () => {
	const page = await logIn();

	await open(page, 'status/overview', '.bd-lines [data-link]');
	assert.deepEqual(await page.locator('.bd-lines [data-link]').evaluateAll(rows => rows.map(row => row.dataset.link)), [ 'wan0', 'wan1' ]);
	await picture(page, 'luci-overview', [ [ 1280, false ] ]);
	await leave(page);
});

test('whatever is passed to the methods, nothing but what they are for is done', { skip, timeout: 360000 }, async () => {
	const page = await logIn();
	const key = await router.run('md5sum /etc/bonding/private.key /etc/config/bonding');
	const old = await router.status();
	const shell = [ '; touch /tmp/owned', '$(touch /tmp/owned)', '`touch /tmp/owned`', '| touch /tmp/owned', '\n touch /tmp/owned', "' touch /tmp/owned '" ];
	const odd = [ ...shell, ...shell.map(text => 'wan0' + text), '', 'nowhere', '--help', '../../etc/passwd', 'wan0\u0001', '\u202e', 'x'.repeat(60000), 'x'.repeat(1 << 20), 5, -1, 1.5, true, null, [], [ [ 'wan0' ] ], {}, { name: 'wan0' } ];
	const answers = [];
	const attack = async (method, params) => {
		const { code, answer } = await ubus(page, 'bonding', method, params);

		answers.push(answer);

		/* Refused before the program sees it, or by the program. */
		assert.ok(code !== 0 || answer.ok === false, `${method} ${JSON.stringify(params).slice(0, 100)}: ${code} ${JSON.stringify(answer)}`);
	};

	await open(page, 'network/bonding/status', '.bd-link');

	for (const value of odd) {
		await attack('link', { name: value, action: 'down' });
		await attack('link', { name: 'wan0', action: value });
		await attack('join', { line: value, wan: [ 'wan0' ] });
		await attack('join', { line: `bonding://${value}`, wan: [ 'wan0' ] });
		await attack('join', { line, wan: [ 'wan0', [ 'nowhere', '--help' ].includes(value) ? null : value ] });
		await attack('join', { line, wan: value });

		/* That is a wish, and granted. */
		if (value !== true)
			await attack('genkey', { replace: value });
	}

	await attack('join', { line, wan: Array(1000).fill('wan0') });
	await attack('dance', {});

	for (const value of odd)
		answers.push(await ubus(page, 'bonding', 'check', { config: value }), await ubus(page, 'bonding', 'status', { after: value }));

	assert.equal(await router.run('ls /tmp/owned 2>/dev/null || echo none'), 'none\n');
	assert.equal(await router.run('md5sum /etc/bonding/private.key /etc/config/bonding'), key);

	const now = await router.status();

	assert.equal(now.pid, old.pid, 'the same process');
	assert.deepEqual(Object.values(now.links).map(link => link.taken_out), [ false, false ]);
	assert.ok(now.endpoint.peers[0].since_ms > old.endpoint.peers[0].since_ms, 'and the same session');

	/* Nor has any answer to one who may change everything a secret in it. */
	for (const method of [ 'status', 'events', 'options', 'check', 'pubkey', 'speedtest_status' ])
		answers.push(await ubus(page, 'bonding', method, {}));

	for (const secret of await secrets())
		assert.ok(!JSON.stringify(answers).includes(secret));

	await page.context().close();
});

test('a read-only account sees the bond and is refused everything else', { skip, timeout: 180000 }, async () => {
	const page = await logIn('reader', 'secret', { where: '/admin/network/bonding/status' });

	await open(page, 'network/bonding/status', '.bd-link');
	assert.equal(await carry(page), 'wan0 wan1');
	assert.equal(await page.locator('.bd button:not([data-show])').count(), 0);

	/* By itself, past the page. */
	const answers = {};

	for (const [ name, method, params ] of [
		[ 'status', 'status', { after: 0 } ], [ 'events', 'events', {} ], [ 'progress', 'speedtest_status', {} ],
		[ 'link', 'link', { name: 'wan0', action: 'down' } ], [ 'reload', 'reload', {} ], [ 'restart', 'restart', {} ],
		[ 'speed', 'speedtest_start', {} ], [ 'options', 'options', {} ], [ 'check', 'check', {} ], [ 'pubkey', 'pubkey', {} ],
		[ 'genkey', 'genkey', { replace: true } ], [ 'join', 'join', { line, wan: [ 'wan0' ] } ]
	])
		answers[name] = await ubus(page, 'bonding', method, params);

	for (const [ method, params ] of [ [ 'get', {} ], [ 'get', { section: 'bond', option: 'preshared_key' } ], [ 'set', { section: 'bond', values: { policy: 'flow' } } ],
		[ 'delete', { section: 'bond' } ], [ 'add', { type: 'link' } ] ])
		answers[`uci ${method} ${params.option || ''}`] = await ubus(page, 'uci', method, { config: 'bonding', ...params });

	answers.file = await ubus(page, 'file', 'read', { path: '/etc/bonding/private.key' });
	answers.configuration = await ubus(page, 'file', 'read', { path: '/etc/config/bonding' });

	const { status, events, progress, ...others } = answers;

	assert.deepEqual([ status.code, events.code, progress.code ], [ 0, 0, 0 ]);
	assert.ok(Object.keys(others).length === 16);

	/* Access denied, in the words of uhttpd or of rpcd. */
	for (const [ name, { code } ] of Object.entries(others))
		assert.ok([ -32002, 6 ].includes(code), `${name}: ${code}`);

	assert.equal((await router.status()).links.wan0.taken_out, false);

	/* No answer that may be read has a secret in it. */
	for (const secret of await secrets())
		assert.ok(!JSON.stringify(answers).includes(secret));

	const setUp = `${LUCI}/admin/network/bonding/config`;

	assert.ok(await page.evaluate(where => fetch(where).then(reply => reply.status), setUp) >= 400, 'no set-up page');
	assert.equal(await page.locator('a[href$="network/bonding/config"]').count(), 0, 'nor a way there');
	await page.context().close();
});
