/* The set-up page: joining with a server's line, every option, what is refused, and a running bond that takes a change. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';

import { Browser, Server, Stage, picture, show, ubus, until } from './bench.js';
import { PROGRAM, ROOT } from './paths.js';
import { parseUci } from './uci.js';

const SECRET = 'c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I=';

const NETWORKS = [
	{ name: 'loopback', proto: 'static', device: 'lo' },
	{ name: 'lan', proto: 'static', device: 'br-lan', address: '192.168.1.1' },
	{ name: 'wan', proto: 'pppoe', device: 'pppoe-wan', address: '198.51.100.7', gateway: '198.51.100.1' },
	{ name: 'wan6', proto: 'dhcpv6', device: 'pppoe-wan' },
	{ name: 'wwan', proto: 'dhcp', device: 'wwan0', address: '100.64.3.9', gateway: '100.64.3.1' }
];

let stage, server, browser;

before(async () => {
	[ stage, browser ] = await Promise.all([ Stage.open(), Browser.open() ]);
	server = await new Server(stage.client).open();
	server.networks = NETWORKS;
}, { timeout: 180000 });

after(async () => {
	server?.close();
	await browser?.close();
	await stage?.close();
});

afterEach(() => Object.assign(server, { answers: {}, config: stage.client, applies: [] }));

/* A file as the package installs it, with its key in the test's folder. */
function fresh(name) {
	const file = path.join(server.state, name);
	const text = fs.readFileSync(path.join(ROOT, 'files/etc/config/bonding'), 'utf8');

	fs.writeFileSync(file, text.replace("option enabled '0'", `option enabled '0'\n\toption private_key_file '${file}.key'\n\toption control_socket '${file}.sock'`), { mode: 0o600 });

	return file;
}

async function setUp(config, options = {}) {
	server.config = config;

	const page = await browser.page(options);

	await show(page, server, 'view.bonding.config', options);
	await page.waitForSelector('.cbi-map, [class*=bd-trouble]');

	return page;
}

const section = (config, type) => parseUci(fs.readFileSync(config, 'utf8')).find(found => found['.type'] === type);
const tab = (page, type) => page.locator(`.cbi-tabmenu.map [data-section=${type}]`).click();
const option = (page, type, name) => page.locator(`#cbi-bonding-${type} [data-name=${name}]`);
const press = (page, handler) => page.locator(`[data-handler=${handler}]`).click();

async function innerTab(page, type, name) {
	await tab(page, type);
	await page.locator(`#cbi-bonding-${type} .cbi-section-node .cbi-tabmenu [data-tab=${name}]`).first().click();
}

async function leave(page) {
	assert.deepEqual(page.complaints, []);
	await page.context().close();
}

test('a beginner pastes one line and chooses the lines', { timeout: 180000 }, async () => {
	const config = fresh('join');
	const other = path.join(server.state, 'server.conf');

	execFileSync(PROGRAM, [ 'server', 'init', '--no-start', '--address', '203.0.113.1', '--config', other ]);

	const line = execFileSync(PROGRAM, [ 'server', 'add-peer', 'home', '--line', '--config', other ], { encoding: 'utf8' }).trim();
	let restarts = 0;

	server.answers.restart = () => {
		restarts++;

		return { ok: true, message: '' };
	};

	const page = await setUp(config);
	const card = page.locator('.bd-join');
	const wans = card.locator('input[type=checkbox]');

	assert.deepEqual(await wans.evaluateAll(boxes => boxes.map(box => [ box.value, box.checked ])), [ [ 'wan', true ], [ 'wwan', true ] ]);
	await picture(page, 'config-join');

	/* What is not the server's line is refused before it goes anywhere. */
	await card.locator('textarea').fill('bonding: //oops');
	await card.getByRole('button', { name: 'Join' }).click();
	await until('it says why', async () => /starts with bonding:/.test(await card.locator('[role=status]').textContent()));
	assert.ok(!server.calls.some(call => call.method === 'join'));

	/* One that the daemon refuses shows the daemon's reason. */
	await card.locator('textarea').fill(line.slice(0, -3) + 'abc');
	await card.getByRole('button', { name: 'Join' }).click();
	await until('the reason is shown', async () => await card.locator('.alert-message.error').count() === 1);
	assert.equal(section(config, 'interface').public_key, undefined);

	await card.locator('textarea').fill(line);
	await card.getByRole('button', { name: 'Join' }).click();
	await until('it has joined', async () => /has joined/.test(await card.locator('[role=status]').textContent()));
	assert.equal(restarts, 1, 'a daemon that did not run is started');

	const [ globals, bond ] = [ section(config, 'globals'), section(config, 'interface') ];

	assert.equal(globals.enabled, '1');
	assert.match(bond.public_key, /^.{43}=$/);
	assert.deepEqual([ bond.server ].flat(), [ '203.0.113.1' ]);
	assert.ok(fs.existsSync(globals.private_key_file), 'its key was made');
	assert.ok(!(await page.content()).includes(bond.preshared_key || 'x y'), 'no secret on the page');
	await picture(page, 'config-joined');
	await leave(page);
});

test('the line of another server comes beside the first', { timeout: 180000 }, async () => {
	const config = fresh('beside');
	const lines = [ '203.0.113.1', '203.0.113.2' ].map(address => {
		/* A folder each, because each has a key of its own there. */
		const file = path.join(server.state, address, 'server.conf');

		fs.mkdirSync(path.dirname(file));
		execFileSync(PROGRAM, [ 'server', 'init', '--no-start', '--address', address, '--config', file ]);

		return execFileSync(PROGRAM, [ 'server', 'add-peer', 'home', '--line', '--config', file ], { encoding: 'utf8' }).trim();
	});

	execFileSync(PROGRAM, [ 'join', lines[0], '--wan', 'wan', '--config', config ]);
	server.answers.restart = () => ({ ok: true, message: '' });

	const first = section(config, 'interface');
	const page = await setUp(config);
	const card = page.locator('.bd-join');

	await card.locator('summary').click();
	await card.locator('textarea').fill(lines[1]);
	await card.getByLabel('Keep the present server').check();
	assert.equal(await card.locator('.bd-wans').isVisible(), false, 'the lines stay as they are');

	const name = card.getByLabel('Name of the server');

	assert.equal(await name.inputValue(), 'server2');
	await name.fill('not a name');
	await card.getByRole('button', { name: 'Join' }).click();
	await until('the name is refused', async () => /letters, digits/.test(await card.locator('[role=status]').textContent()));

	await name.fill('second');
	await picture(page, 'config-beside');
	await card.getByRole('button', { name: 'Join' }).click();
	await until('it has joined', async () => /has joined/.test(await card.locator('[role=status]').textContent()), 90, () => card.innerText());

	const second = section(config, 'server');

	assert.equal(second['.name'], 'second');
	assert.deepEqual([ second.server ].flat(), [ '203.0.113.2' ]);
	assert.deepEqual(section(config, 'interface'), first, 'the first server is as it was');
	await leave(page);
});

test('every option of the schema has a field with a title and its help', { timeout: 180000 }, async () => {
	const config = fresh('all');

	const { sections } = await ubus(config, server.state, 'options');

	/* One of each kind of section. */
	for (const { type, single } of sections)
		if (!single && !section(config, type))
			fs.appendFileSync(config, `\nconfig ${type} 'one_${type}'\n`);

	const page = await setUp(config);

	for (const { type, options } of sections) {
		const titles = new Set();

		for (const { name, help } of options) {
			const field = option(page, type, name);

			assert.ok(await field.count() > 0, `${type}.${name} has no field`);
			assert.ok((await field.first().locator('.cbi-value-description').textContent()).includes(help.replaceAll('`', '').slice(0, 20)), `${type}.${name} has no help`);

			const title = (await field.first().locator('.cbi-value-title').textContent()).trim();

			assert.match(title, /^[A-Z]/, `${type}.${name} has no title`);
			assert.ok(!titles.has(title), `${type}.${name} has the title of another: ${title}`);
			titles.add(title);
		}
	}

	await tab(page, 'interface');
	await picture(page, 'config-bond');
	await page.setViewportSize({ width: 1280, height: 900 });
	await tab(page, 'link');
	await picture(page, 'config-links');
	await leave(page);
});

test('a wrong value is marked and not saved', { timeout: 180000 }, async () => {
	const config = fresh('wrong');
	const old = fs.readFileSync(config, 'utf8');
	const page = await setUp(config);

	await innerTab(page, 'interface', 'general');

	const field = option(page, 'interface', 'remote_port');

	await field.locator('input').fill('70000');
	await until('it is marked', async () => /a port \(1-65535\)/.test(await field.getAttribute('data-problem') || ''));
	await press(page, 'handleSaveApply');
	await until('the saving is refused', async () => /invalid input value/.test(await page.locator('.modal').textContent()));
	assert.equal(fs.readFileSync(config, 'utf8'), old);
	assert.equal(server.applies.length, 0);
	await leave(page);
});

test('options that do not go together are refused in the daemon\'s words', { timeout: 180000 }, async () => {
	const config = fresh('together');
	const old = fs.readFileSync(config, 'utf8');
	const page = await setUp(config);

	/* Each is right by itself: a tunnel in IPv6 needs packets of 1280 bytes. */
	await innerTab(page, 'interface', 'traffic');
	await option(page, 'interface', 'mtu').locator('input').fill('500');
	await press(page, 'handleSave');
	await until('the reason is shown', async () => /below 576/.test(await page.locator('.modal').textContent()));
	assert.equal(fs.readFileSync(config, 'utf8'), old);
	await leave(page);
});

test('a secret is never on the page, stays, and can be replaced and removed', { timeout: 180000 }, async () => {
	const config = fresh('secret');

	fs.writeFileSync(config, fs.readFileSync(config, 'utf8').replace("option ifname 'bond0'", `option ifname 'bond0'\n\toption preshared_key '${SECRET}'`));

	/* There is no daemon to take it over. */
	server.answers.reload = { ok: true };

	const page = await setUp(config);
	const field = option(page, 'interface', 'preshared_key');
	const inputs = () => page.evaluate(() => [ ...document.querySelectorAll('input, textarea, select') ].map(input => input.value).join('\n'));

	assert.ok(!(await page.content()).includes(SECRET) && !(await inputs()).includes(SECRET));
	assert.match(await field.locator('input').getAttribute('placeholder'), /^set/);
	await press(page, 'handleSaveApply');
	await until('it is saved', async () => await page.evaluate(() => window.standin.applied) === 1);
	assert.equal(section(config, 'interface').preshared_key, SECRET, 'it stays');

	await innerTab(page, 'interface', 'general');
	await field.locator('input').fill('too short');
	await until('a wrong key is marked', async () => /a key/.test(await field.getAttribute('data-problem') || ''));

	const other = SECRET.replace('c2Vj', 'b3Ro');

	await field.locator('input').fill(other);
	await press(page, 'handleSaveApply');
	await until('it is saved', async () => await page.evaluate(() => window.standin.applied) === 2);
	assert.equal(section(config, 'interface').preshared_key, other);
	assert.ok(!(await page.content()).includes(other) && !(await inputs()).includes(other));

	await innerTab(page, 'interface', 'general');
	await field.getByRole('button', { name: 'Remove this key' }).click();
	await until('it is gone', async () => await field.getByRole('button').count() === 0);
	await press(page, 'handleSaveApply');
	await until('it is saved', async () => await page.evaluate(() => window.standin.applied) === 3);
	assert.equal(section(config, 'interface').preshared_key, undefined);
	await leave(page);
});

test('a key is made by a button, and only its public half is shown', { timeout: 180000 }, async () => {
	const config = fresh('key');
	const page = await setUp(config);
	const field = option(page, 'globals', '_public_key');

	assert.match(await field.textContent(), /none yet/);
	await field.getByRole('button', { name: 'Make a key' }).click();
	await until('it is shown', async () => /^[A-Za-z0-9+/]{43}=$/.test(await field.locator('code').textContent()));

	const secret = fs.readFileSync(`${config}.key`, 'utf8').trim();
	const first = await field.locator('code').textContent();

	assert.equal(execFileSync(PROGRAM, [ 'pubkey' ], { input: secret, encoding: 'utf8' }).trim(), first);
	assert.equal(fs.statSync(`${config}.key`).mode & 0o777, 0o600);
	assert.ok(!(await page.content()).includes(secret));

	/* To replace one is asked about. */
	await field.getByRole('button').click();
	await page.locator('.modal').getByRole('button', { name: 'Cancel' }).click();
	assert.equal(await field.locator('code').textContent(), first);
	await field.getByRole('button').click();
	await page.locator('.modal').getByRole('button', { name: 'Make a new key' }).click();
	await until('it is another', async () => await field.locator('code').textContent() !== first);
	await leave(page);
});

test('links and rules come and go', { timeout: 180000 }, async () => {
	const config = fresh('sections');

	server.answers.reload = { ok: true };

	const page = await setUp(config);

	await tab(page, 'link');
	await page.locator('#cbi-bonding-link .cbi-section-create input').fill('lte');
	await page.getByRole('button', { name: 'Add a link' }).click();

	const field = page.locator('#cbi-bonding-link [data-sid=lte]');

	await field.locator('xpath=self::*[@data-name="interface"]//input').fill('wwan');
	await page.locator('[data-section-id=lte] [data-tab=limits]').first().click();
	await field.locator('xpath=self::*[@data-name="quota"]//input').fill('50G');
	await page.locator('[data-remove=link1]').click();
	await tab(page, 'rule');
	await page.getByRole('button', { name: 'Add a rule' }).click();
	await page.locator('#cbi-bonding-rule [data-name=policy] select').selectOption('redundant');
	await page.locator('#cbi-bonding-rule [data-name=proto] .add-item input').fill('udp');
	await page.keyboard.press('Enter');
	await page.locator('#cbi-bonding-rule [data-name=dest_port] .add-item input').fill('5060');
	await page.keyboard.press('Enter');
	await press(page, 'handleSaveApply');
	await until('it is saved', async () => await page.evaluate(() => window.standin.applied) === 1, 90, () => page.locator('body').innerText());

	const sections = parseUci(fs.readFileSync(config, 'utf8'));
	const lte = sections.find(found => found['.name'] === 'lte');

	assert.deepEqual([ lte.interface, lte.quota ], [ 'wwan', '50G' ]);
	assert.ok(!sections.some(found => found['.name'] === 'link1'));
	assert.deepEqual(sections.filter(found => found['.type'] === 'rule').map(({ policy, dest_port: ports }) => [ policy, ports ]), [ [ 'redundant', [ '5060' ] ] ]);
	await leave(page);
});

test('a running bond takes a change over without a pause', { timeout: 270000 }, async () => {
	const status = () => ubus(stage.client, server.state, 'status');
	const ready = await until('both links are up', async () => {
		const found = await status();

		return found.endpoint?.peers[0]?.links.filter(link => link.state === 'up').length === 2 && found;
	}, 30);
	const page = await setUp(stage.client);

	await innerTab(page, 'interface', 'traffic');
	await option(page, 'interface', 'policy').locator('select').selectOption('round-robin');
	await press(page, 'handleSaveApply');
	await until('it is applied', async () => await page.evaluate(() => window.standin.applied) === 1);
	assert.deepEqual(server.applies.map(answer => answer.ok), [ true ]);

	const now = await until('the policy is another', async () => {
		const found = await status();

		return found.endpoint.peers[0].policy === 'round-robin' && found;
	});

	assert.equal(now.pid, ready.pid, 'the same process');
	assert.equal(now.endpoint.peers[0].up, true);
	assert.ok(now.endpoint.peers[0].since_ms > ready.endpoint.peers[0].since_ms, 'and the same session');

	const first = parseUci(fs.readFileSync(stage.client, 'utf8'));

	assert.equal(first.find(found => found['.type'] === 'interface').policy, 'round-robin');
	await leave(page);
});

test('an account that may not read the configuration is told so', { timeout: 90000 }, async () => {
	server.answers.options = () => {
		throw new Error('Access denied');
	};

	const page = await setUp(stage.client, { readonly: true });

	assert.match(await page.locator('#maincontent').textContent(), /cannot be shown.*may change it/s);
	assert.equal(await page.locator('#maincontent button').count(), 0);
	await leave(page);
});
