'use strict';
'require view';
'require dom';
'require poll';
'require ui';
'require bonding.bond as bond';
'require bonding.chart as chart';

/* Seconds between two looks, and how much the chart shows. */
const INTERVAL = 2;
const SPAN = 300000;
/* Events that are shown before somebody asks for all. */
const FEW = 12;
/* Bits a second that probes alone may take. */
const NOISE = 50e3;
/* A clock that differs from the reader's by more is worth a word. */
const CLOCK = 600000;

/* Changes a text only where it differs: a selection or a screen reader is not disturbed. */
function set(element, text) {
	if (element.textContent !== text)
		element.textContent = text;
}

/* A figure of a scale, without the digits that say nothing. */
const round = text => text.replace(/(\.\d*?)0+ /, '$1 ').replace('. ', ' ');

function bar(share, shade) {
	return E('div', { 'class': 'bd-bar', 'style': shade ? '--bd-shade:' + shade : null },
		[ E('div', { 'style': 'width:%.1f%%'.format(Math.min(share || 0, 1) * 100) }) ]);
}

function pairs(list) {
	return E('dl', { 'class': 'bd-pairs' }, list.flatMap(([ name, value ]) => [ E('dt', [ name ]), E('dd', [ value ]) ]));
}

function possible(capacity, peak) {
	return capacity ? _('of about %s').format(bond.rate(capacity))
		: peak > NOISE ? _('at most %s so far').format(bond.rate(peak)) : _('not measured yet');
}

/* A name, a figure, and a bar of how much of what is possible that is. */
class Meter {
	constructor(name, shade) {
		this.value = E('span');
		this.fill = E('div');
		this.limit = E('small');
		this.node = E('div', [
			E('div', [ E('span', { 'class': 'bd-dim' }, [ name ]), this.value ]),
			E('div', { 'class': 'bd-bar', 'style': '--bd-shade:' + shade }, [ this.fill ]),
			this.limit
		]);
	}

	/* Where the daemon does not know what the line carries, the highest rate that was seen is shown instead. */
	update(rate, capacity, peak) {
		const most = capacity || (peak > NOISE ? peak : 0);

		set(this.value, bond.rate(rate));
		set(this.limit, possible(capacity, peak));
		this.fill.style.width = '%.1f%%'.format(most ? Math.min((rate || 0) / most, 1) * 100 : 0);
	}
}

/* The row of one link; made once, then kept up to date. */
class Row {
	constructor(link, actions) {
		this.down = new Meter(_('Download'), link.colour);
		this.up = new Meter(_('Upload'), link.colour);
		this.dot = bond.dot('off');
		this.word = E('span', { 'class': 'bd-word' });
		this.why = E('div', { 'class': 'bd-why bd-dim' });
		this.where = E('div', { 'class': 'bd-dim' });
		this.figures = E('div');
		this.places = E('div');
		this.actions = actions;
		this.node = E('div', {
			'class': 'bd-link', 'data-link': link.key, 'style': '--bd-shade:' + link.colour,
			'role': 'group', 'aria-label': link.key
		}, [
			E('div', [
				E('div', { 'class': 'bd-name' }, [ link.key ]),
				E('div', [ this.dot, this.word ]),
				this.why, this.where
			]),
			this.figures,
			E('div', { 'class': 'bd-ways' }, [ this.down.node, this.up.node, this.places ]),
			actions
		]);
		this.places.style.gridColumn = '1 / -1';
		this.places.style.marginTop = '.4em';
	}

	update(link, total, failure) {
		const [ word, kind ] = bond.state(link.state);
		const alive = link.state === 'up' || link.state === 'suspect';
		const since = link.since_ms != null ? bond.duration(link.since_ms) : '';
		const share = total > 1000 ? ((link.rx_rate || 0) + (link.tx_rate || 0)) / total : null;
		const reason = link.place.note || link.reason;
		const why = [];

		this.node.setAttribute('data-state', link.state);
		this.node.classList.remove('bd-good', 'bd-fair', 'bd-bad', 'bd-off');
		this.node.classList.add('bd-' + kind);
		this.dot.className = 'bd-dot bd-' + kind;
		set(this.word, word);

		if (since)
			why.push(_('for %s').format(since));

		if (!alive && reason)
			why.push(bond.word(reason));
		else if (failure)
			why.push(_('before: %s').format(bond.word(failure)));

		set(this.why, why.join(' · '));
		set(this.where, [ link.network, link.local ].filter(Boolean).join(' · '));

		this.down.update(link.rx_rate, link.rx_capacity, link.peak.rx);
		this.up.update(link.tx_rate, link.tx_capacity, link.peak.tx);

		const list = [
			[ _('Delay'), !alive || link.rtt_ms == null ? '–' : _('%s (best %s)').format(bond.ms(link.rtt_ms), bond.ms(link.rtt_min_ms)) ],
			[ _('Jitter'), alive ? bond.ms(link.jitter_ms) : '–' ],
			[ _('Loss'), !alive || link.tx_loss == null ? '–' : bond.ways(bond.percent(link.rx_loss), bond.percent(link.tx_loss)) ],
			[ _('Share'), alive ? bond.percent(share) : '–' ]
		];

		const quota = link.place?.quota;

		if (quota)
			list.push([ _('Quota'), [ _('%s of %s').format(bond.bytes(quota.used), bond.bytes(quota.quota)), quota.used_up ? _('used up') : null ].filter(Boolean).join(' · ') ]);

		dom.content(this.figures, pairs(list));
		set(this.places, [
			link.remote || (link.place.servers || []).join(', '),
			link.rx_bytes != null ? _('%s in, %s out').format(bond.bytes(link.rx_bytes), bond.bytes(link.tx_bytes)) : null
		].filter(Boolean).join(' · '));
		this.places.className = 'bd-dim';

		for (const button of this.actions.querySelectorAll('[data-for]'))
			button.style.display = button.getAttribute('data-for').split(' ').includes(link.state === 'disabled' ? 'out' : 'in') ? '' : 'none';
	}
}

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load: () => L.resolveDefault(bond.status(0).catch(error => ({ failed: error.message }))),

	render(status) {
		bond.style();

		this.mayAct = L.hasViewPermission() !== false;
		this.events = [];
		this.peaks = {};
		this.chart = new chart.Chart(SPAN, rate => round(bond.rate(rate)), ms => bond.ms(ms));
		this.root = E('div', { 'class': 'bd' });
		this.page = null;

		this.update(status || { failed: _('No answer.') });

		poll.add(() => this.look(), INTERVAL);
		document.addEventListener('visibilitychange', () => this.turn());
		window.addEventListener('resize', () => {
			if (this.page === 'status')
				this.chart.draw();
		});

		return E('div', [ E('h2', [ _('Bonding') ]), this.root ]);
	},

	/* One call a tick, and one more while the speed is tested; none while nobody looks. */
	look() {
		if (document.hidden)
			return Promise.resolve();

		return bond.status(this.events.length ? this.events[this.events.length - 1].number : 0)
			.catch(error => ({ failed: error.message }))
			.then(status => this.update(status))
			.then(() => this.page === 'status' && this.tested?.running ? this.watchSpeedTest() : null);
	},

	/* What was gathered while the page was seen is forgotten when it is not. */
	turn() {
		if (document.hidden) {
			this.chart.clear();
			this.events = [];
		}
		else {
			this.look();
		}
	},

	/* Shows a status: as such, or what is wrong where there is nothing to show. */
	update(status) {
		if (document.hidden)
			return;

		const trouble = this.diagnose(status);

		if (status.running)
			this.gather(status);

		if (trouble)
			this.showTrouble(trouble, status);
		else
			this.showStatus(status);
	},

	/* Keeps events, chart and peaks. Another process has other event numbers. */
	gather(status) {
		if (status.pid !== this.pid) {
			const known = this.pid;

			this.pid = status.pid;
			this.events = [];

			if (known)
				status.events = [];
		}

		/* Two looks may have been under way at once. */
		const last = this.events[this.events.length - 1]?.number || 0;
		const fresh = (status.events || []).filter(event => event.number > last);

		/* By the reader's clock: that of the router may be wrong. */
		for (const event of fresh)
			event.time = Date.now() - event.age_ms;

		this.events = this.events.concat(fresh).slice(-200);

		for (const link of bond.links(status)) {
			const peak = this.peaks[link.key] ||= { rx: 0, tx: 0 };

			peak.rx = Math.max(peak.rx, link.rx_rate || 0);
			peak.tx = Math.max(peak.tx, link.tx_rate || 0);
		}

		this.chart.push(Date.now(), bond.links(status).map(link => ({
			key: link.key, colour: link.colour, rx: link.rx_rate || 0, tx: link.tx_rate || 0,
			rtt: link.state === 'up' || link.state === 'suspect' ? link.rtt_ms : null
		})));
	},

	/* What is wrong, in a way that tells what to do; nothing where the bond is up. */
	diagnose(status) {
		const setUp = { text: _('Set up the bond'), href: L.url('admin/network/bonding/config') };
		const start = { text: _('Start the daemon'), act: bond.restart };

		if (status.failed)
			return {
				kind: 'bad', id: 'no-object', title: _('The router does not answer for the bond'),
				text: [ _('The ubus object "bonding" cannot be called. Is the package "bonding" installed? After an installation by hand, run "/etc/init.d/rpcd reload" and log in again.') ],
				log: [ status.failed ]
			};

		if (!status.running)
			return this.diagnoseStopped(status, setUp, start);

		if (status.role === 'server' || bond.isUp(status))
			return null;

		return this.diagnoseSilent(status, setUp);
	},

	diagnoseStopped(status, setUp, start) {
		if (status.valid && !status.configured)
			return {
				kind: 'off', id: 'not-configured', title: _('The bond is not set up yet'),
				text: [ _('A bond joins the internet lines of this router into one. It needs a server in a data centre: there, "bonding server add-peer NAME" prints one line. Paste that line into the set-up page and choose the lines; nothing more is needed.') ],
				buttons: [ setUp ]
			};

		const problems = (status.problems || []).map(problem => [
			problem.line ? _('Line %d').format(problem.line) : null, problem.section, problem.option
		].filter(Boolean).join(', ').concat(': ', problem.message).replace(/^: /, ''));

		if (!status.valid)
			return {
				kind: 'bad', id: 'invalid', title: _('The configuration has mistakes'),
				text: [ problems.length ? _('The daemon does not start until these are corrected in %s:').format(status.config) : status.error ],
				list: problems, buttons: [ setUp, start ]
			};

		if (!status.enabled)
			return {
				kind: 'off', id: 'disabled', title: _('The bond is switched off'),
				text: [ _('The bond is set up, but not enabled. Switch it on under "General" of the set-up page.') ],
				buttons: [ setUp ]
			};

		return {
			kind: 'bad', id: 'stopped', title: _('The daemon is not running'),
			text: [ problems.length ? _('It cannot start before this is done:')
				: (status.log || []).length ? _('The last that it wrote to the log:') : _('The log has nothing from it.') ],
			list: problems, log: status.log, buttons: [ start, setUp ]
		};
	},

	/* The daemon runs, and no link carries traffic. */
	diagnoseSilent(status, setUp) {
		const peer = status.endpoint?.peers?.[0] || {};
		const links = bond.links(status);
		const used = links.filter(link => link.state !== 'disabled');
		const placeless = used.filter(link => link.place.note);
		const refused = this.events.concat(status.events || []).filter(event => event.what === 'handshake failed').pop();
		const drops = status.endpoint?.drops || {};
		const reconnect = { text: _('Restart the daemon'), act: bond.restart };
		const list = used.map(link => _('Link %s: %s').format(link.name, bond.word(link.place.note || link.reason || link.state)));

		if (peer.public_key && peer.public_key === status.endpoint.public_key)
			return {
				kind: 'bad', id: 'wrong-key', title: _('The server\'s key is this router\'s own'),
				text: [ _('The option "public_key" must hold the public key of the server, not that of this router. On the server, "bonding pubkey < /etc/bonding/private.key" prints it.') ],
				buttons: [ setUp ]
			};

		if (refused && /version/.test(refused.why))
			return {
				kind: 'bad', id: 'version', title: _('The server speaks another version'),
				text: [ _('The server answered, but it and this router (%s) do not understand each other. Install the same version at both ends; the older one is most often the server.').format(status.program) ],
				log: [ refused.why ], buttons: [ reconnect ]
			};

		/* A router without a battery starts in 1970, or when its software was built. */
		if (Math.abs(status.time_ms - Date.now()) > 86400000 && !drops['handshake undecryptable'])
			return {
				kind: 'bad', id: 'clock', title: _('The clock of this router is wrong'),
				text: [ _('It is %s on the router and %s here. A server refuses a router whose clock went back, since old messages could be played again to it. Set the time, or let NTP do so; the bond then comes up by itself.')
					.format(new Date(status.time_ms).toLocaleString(), new Date().toLocaleString()) ],
				buttons: [ { text: _('Set the time'), href: L.url('admin/system/system') } ], list
			};

		if (drops['handshake undecryptable'] || (refused && /key/.test(refused.why)))
			return {
				kind: 'bad', id: 'wrong-key', title: _('The keys of the two ends do not match'),
				text: [ _('The server answered, but not so that this router can read it. Compare the keys: "public_key" here must be the server\'s, the server must know the key of this router, and "preshared_key" must be the same at both ends or at none.') ],
				list: this.keys(status), buttons: [ setUp ]
			};

		if (!used.length)
			return {
				kind: 'off', id: 'no-link', title: _('Every link is taken out'),
				text: [ _('No link may carry traffic. Put one back:') ],
				buttons: links.map(link => ({ text: _('Put %s back').format(link.name), act: () => bond.link(link.name, 'up') }))
			};

		if (placeless.length === used.length)
			return {
				kind: 'bad', id: 'no-wan', title: _('No internet line is up'),
				text: [ _('None of the lines has an address at the moment. Look at their modems and at the interfaces of this router; the bond comes up by itself.') ],
				list, buttons: [ { text: _('Interfaces'), href: L.url('admin/network/network') } ]
			};

		if (peer.since_ms < 4000 && status.uptime_ms < 6000)
			return {
				kind: 'fair', id: 'connecting', title: _('Connecting to the server …'), text: [], list
			};

		return {
			kind: 'bad', id: 'no-answer', title: _('The server does not answer'),
			text: [ _('No link gets an answer from %s. What to check, the most frequent first:').format(
				[ ...new Set(used.flatMap(link => link.remote || link.place.servers || [])) ].join(', ') || '?') ],
			steps: [
				_('Do the lines work? Look at the interfaces of this router and at the lamps of the modems.'),
				_('Does the server run? There: "bonding status".'),
				_('Is its UDP port open in its firewall and in that of its provider? Some networks block UDP: give the server a second "listen_port", such as 443.'),
				_('Do the keys match? A server stays silent to a key that it does not know. There, "bonding status" counts handshakes from unknown keys.')
			],
			list: list.concat(this.keys(status)), buttons: [ reconnect, setUp ]
		};
	},

	keys(status) {
		return [
			_('Public key of this router, to be known at the server: %s').format(status.endpoint.public_key),
			_('Public key of the server, as set here: %s').format(status.endpoint.peers?.[0]?.public_key || '–')
		];
	},

	showTrouble(trouble, status) {
		const shown = JSON.stringify([ trouble, this.mayAct ]);

		/* Rebuilt only when it says something else, so that a button can be pressed and a key be copied. */
		if (this.page === shown)
			return;

		this.page = shown;

		const button = spec => spec.href
			? E('a', { 'class': 'btn cbi-button cbi-button-action', 'href': spec.href }, [ spec.text ])
			: this.button(spec.text, 'cbi-button-apply', spec.act);

		dom.content(this.root, E('div', { 'class': 'cbi-section bd-trouble bd-' + trouble.kind, 'data-trouble': trouble.id }, [
			E('h3', [ bond.dot(trouble.kind), trouble.title ]),
			...trouble.text.map(text => E('p', [ text ])),
			trouble.steps ? E('ol', trouble.steps.map(text => E('li', [ text ]))) : '',
			trouble.list?.length ? E('ul', trouble.list.map(text => E('li', [ text ]))) : '',
			trouble.log?.length ? E('pre', [ trouble.log.join('\n') ]) : '',
			E('div', { 'class': 'bd-actions' },
				(trouble.buttons || []).filter(spec => spec.href || this.mayAct).map(button)),
			status.program ? E('p', { 'class': 'bd-dim' }, [ _('Version %s').format(status.program) ]) : ''
		]));
	},

	/* A button that is busy while its act is under way, and says what went wrong. */
	button(text, style, act, attributes) {
		return E('button', Object.assign({
			'class': 'btn cbi-button ' + (style || ''),
			'click': ui.createHandlerFn(this, () => Promise.resolve(act())
				.then(() => this.look())
				.catch(error => ui.addNotification(null, E('p', [ error.message ]), 'error')))
		}, attributes), [ text ]);
	},

	buildStatus() {
		this.page = 'status';
		this.rows = new Map();
		this.shownEvents = null;
		this.all = false;

		this.verdict = E('span');
		this.summary = E('div', { 'class': 'bd-dim' });
		this.head = E('div', { 'class': 'cbi-section bd-head' }, [
			E('div', [ E('div', { 'class': 'bd-verdict' }, [ this.verdict ]), this.summary ]),
			this.speeds = E('div', { 'class': 'bd-speeds' }),
			E('div', { 'class': 'bd-actions' }, this.mayAct ? [
				this.speedTest = this.button(_('Speed test'), 'cbi-button-action', () => this.testSpeed()),
				this.button(_('Restart'), 'cbi-button-neutral', () => bond.confirm(_('Restart the daemon?'),
					_('Connections through the bond pause for a moment. Changes of the configuration do not need this, except where the page says so.'),
					_('Restart'), bond.restart))
			] : [])
		]);
		this.notes = E('div');
		this.test = E('div', { 'class': 'cbi-section', 'data-test': '', 'style': 'display: none' });
		this.legend = E('div', { 'class': 'bd-legend' });
		this.list = E('div');
		this.details = E('div', { 'class': 'bd-details' });
		this.history = E('div');

		dom.content(this.root, [
			this.head, this.test, this.notes,
			E('div', { 'class': 'cbi-section' }, [
				E('h3', [ _('The last minutes') ]), this.legend, E('div', { 'class': 'bd-chart' }, [ this.chart.svg ])
			]),
			E('div', { 'class': 'cbi-section' }, [ E('h3', [ _('Links') ]), this.list ]),
			E('div', { 'class': 'cbi-section' }, [ E('h3', [ _('Details') ]), this.details ]),
			E('div', { 'class': 'cbi-section' }, [ E('h3', [ _('Recent events') ]), this.history ])
		]);
	},

	showStatus(status) {
		if (this.page !== 'status')
			this.buildStatus();

		const links = bond.links(status).map(link => Object.assign(link, { peak: this.peaks[link.key] || { rx: 0, tx: 0 } }));

		this.showHead(status, links);
		this.showNotes(status);
		this.showLinks(links);
		this.showDetails(status);
		this.showEvents();
		this.chart.draw();
	},

	showHead(status, links) {
		const up = links.filter(link => link.state === 'up').length;
		const used = links.filter(link => link.state !== 'disabled').length;
		const peers = status.endpoint.peers;
		const here = peers.filter(peer => peer.up);
		const server = status.role === 'server';
		const kind = server ? (here.length ? 'good' : 'off') : up < used ? 'fair' : 'good';
		const since = here.length ? Math.max(...here.map(peer => peer.since_ms)) : 0;

		this.head.className = 'cbi-section bd-head bd-' + kind;
		dom.content(this.verdict, [ bond.dot(kind), server
			? _('%d of %d routers connected').format(here.length, peers.length)
			: _('Online through the bond') ]);
		set(this.summary, server
			? _('Waiting on %s').format((status.listen || []).join(', '))
			: [ _('%d of %d links up').format(up, links.length), _('for %s').format(bond.duration(since)), this.serverInUse(status) ].filter(Boolean).join(' · '));

		const usable = links.filter(link => link.state === 'up');
		const sum = (list, value) => list.reduce((total, link) => total + value(link), 0);
		const figure = (name, way) => {
			const rate = sum(links, link => link[way + '_rate'] || 0);
			const most = sum(usable, link => link[way + '_capacity'] || link.peak[way]);
			const measured = usable.every(link => link[way + '_capacity']);

			return E('div', { 'data-figure': way }, [
				E('div', { 'class': 'bd-dim' }, [ name ]),
				E('div', { 'class': 'bd-figure' }, [ bond.ratePair(rate)[0] + ' ', E('span', [ bond.ratePair(rate)[1] ]) ]),
				bar(measured || most > NOISE ? rate / most : 0),
				E('small', [ possible(measured ? most : null, most) ])
			]);
		};

		dom.content(this.speeds, [ figure(_('Download now'), 'rx'), figure(_('Upload now'), 'tx') ]);

		dom.content(this.legend, links.map(link => E('span', { 'style': '--bd-shade:' + link.colour }, [
			E('span', { 'class': 'bd-key' }), link.key
		])));
	},

	/* Which of several servers the bond is at. */
	serverInUse(status) {
		const servers = status.servers || [];

		return servers.length > 1 ? servers.filter(server => server.in_use).map(server => _('at %s').format(server.name)).join() : '';
	},

	showNotes(status) {
		const notes = [];

		if (status.kernel?.problems?.length)
			notes.push([ _('Kernel mode: a link has no tunnel device.'), status.kernel.problems ]);

		if (status.firewall?.problem)
			notes.push([ _('Addresses are not translated.'), [ status.firewall.problem ] ]);

		if (status.reload && !status.reload.ok)
			notes.push([ _('The changed configuration was refused; the old one is still in use.'), status.reload.details ]);
		else if (status.reload?.details?.length)
			notes.push([ _('Some changes wait for a restart:'), status.reload.details ]);

		if (Math.abs(status.time_ms - Date.now()) > CLOCK)
			notes.push([ _('The clock of this router is wrong: it is %s there.').format(new Date(status.time_ms).toLocaleString()), [] ]);

		if ([ 'silent', 'acting' ].includes(status.watchdog?.state))
			notes.push([ _('Nobody answers the watchdog through the bond.'), [
				status.watchdog.error, status.watchdog.next_action_ms == null ? ''
					: _('It acts in %s.').format(bond.duration(status.watchdog.next_action_ms))
			].filter(Boolean) ]);

		const shown = JSON.stringify(notes);

		if (this.shownNotes === shown && this.notes.firstChild)
			return;

		this.shownNotes = shown;
		dom.content(this.notes, notes.map(([ text, details ]) => E('div', { 'class': 'alert-message warning' }, [
			E('p', [ text ]), details.length ? E('ul', details.map(line => E('li', [ line ]))) : ''
		])));
	},

	showLinks(links) {
		const total = links.reduce((sum, link) => sum + (link.rx_rate || 0) + (link.tx_rate || 0), 0);
		const keys = links.map(link => link.key);

		if (keys.join('\n') !== [ ...this.rows.keys() ].join('\n')) {
			this.rows = new Map(links.map(link => [ link.key, new Row(link, this.linkButtons(link)) ]));
			dom.content(this.list, links.length ? links.map(link => this.rows.get(link.key).node)
				: E('p', { 'class': 'bd-dim' }, [ _('No link is connected.') ]));
		}

		for (const link of links) {
			const failure = this.events.filter(event => event.link === link.name && event.why &&
				[ 'down', 'suspect' ].includes(event.what)).pop();

			this.rows.get(link.key).update(link, total, failure?.why);
		}
	},

	linkButtons(link) {
		if (!this.mayAct || link.peer)
			return E('div', { 'class': 'bd-actions' });

		const act = (text, style, action, when, title) => this.button(text, style, () => bond.link(link.name, action),
			{ 'data-for': when, 'data-action': action, 'title': title });

		return E('div', { 'class': 'bd-actions' }, [
			act(_('Put back'), 'cbi-button-apply', 'up', 'out', _('Use this link again')),
			act(_('Reconnect'), 'cbi-button-neutral', 'reconnect', 'in', _('Open the connection of this link anew')),
			act(_('Take out'), 'cbi-button-neutral', 'down', 'in', _('Use this link no more, until it is put back or the daemon restarts'))
		]);
	},

	showDetails(status) {
		const server = status.role === 'server';
		const peer = server ? {} : status.endpoint.peers[0] || {};
		const mono = text => E('span', { 'class': 'bd-mono' }, [ text ]);
		const groups = [ [
			[ _('Received'), bond.bytes(peer.rx_bytes) ],
			[ _('Sent'), bond.bytes(peer.tx_bytes) ],
			[ _('Policy'), bond.policy(peer.policy) ],
			[ _('Cipher'), peer.cipher ],
			[ _('Last handshake'), peer.last_handshake_ms == null ? null : _('%s ago').format(bond.duration(peer.last_handshake_ms)) ],
			[ _('Sent again'), peer.resent == null ? null : _('%d packets').format(peer.resent) ],
			[ _('Waiting in line'), peer.queue_packets == null ? null : _('%d packets').format(peer.queue_packets) ],
			...(status.servers?.length > 1 ? status.servers.map(found => [ _('Server %s').format(found.name), this.server(found) ]) : [])
		], [
			[ _('Device'), _('%s, packets up to %d bytes').format(status.ifname, status.mtu) ],
			[ _('Running for'), bond.duration(status.uptime_ms) ],
			[ _('Version'), status.program ],
			[ _('Watchdog'), this.watchdog(status.watchdog) ],
			[ _('Kernel mode'), this.kernel(status.kernel) ],
			[ _('Key of this end'), mono(status.endpoint.public_key) ],
			[ _('Key of the server'), peer.public_key ? mono(peer.public_key) : null ]
		] ];

		const shown = JSON.stringify(groups.map(group => group.map(([ , value ]) => value?.textContent ?? value)));

		if (this.shownDetails === shown && this.details.firstChild)
			return;

		this.shownDetails = shown;
		dom.content(this.details, groups.map(group => pairs(group.filter(([ , value ]) => value != null && value !== '–'))));
	},

	/* A server among several: in use or on standby, and when it answered. */
	server(found) {
		const heard = found.heard_ms == null ? _('has never answered') : _('answered %s ago').format(bond.duration(found.heard_ms));

		return [
			found.in_use ? _('in use for %s').format(bond.duration(found.since_ms)) : _('on standby'),
			found.answers ? (found.in_use ? null : _('answers')) : found.answers === false ? [ _('silent'), heard ].join(', ') : heard
		].filter(Boolean).join(' · ');
	},

	/* What the kernel's bonding driver spreads packets over. */
	kernel(state) {
		return state && [ state.bond_mode, ...(state.slaves || []).map(slave =>
			'%s: %s'.format(slave.device, slave.carrier ? _('carrier') : _('no carrier'))) ].filter(Boolean).join(' · ');
	},

	watchdog(state) {
		if (!state)
			return null;

		const said = {
			ok: _('answered in %s').format(bond.ms(state.rtt_ms)),
			silent: _('no answer'),
			acting: _('acting'),
			waiting: _('waits for a link')
		}[state.state] || state.state;

		return state.actions ? [ said, _('acted %d times').format(state.actions) ].join(' · ') : said;
	},

	showEvents() {
		const events = this.events.slice().reverse();
		const shown = '%d %s'.format(events[0]?.number || 0, this.all);

		if (this.shownEvents === shown)
			return;

		this.shownEvents = shown;

		const item = event => {
			const state = bond.state(event.what);
			const kind = event.link || [ 'up', 'down' ].includes(event.what) ? state[1] : 'off';
			const time = new Date(event.time);

			return E('li', { 'class': 'bd-' + kind, 'data-number': event.number }, [
				E('span', { 'class': 'bd-dim' }, [ time.toLocaleString() ]),
				E('span', [ [ event.peer === 'server' ? null : event.peer, event.link ].filter(Boolean).join('/') || (event.peer ? _('Bond') : _('Daemon')) ]),
				E('span', [
					bond.dot(kind), E('span', { 'class': kind === 'off' ? '' : 'bd-word' }, [ bond.word(event.what) ]),
					event.why && event.why !== 'taken out by the user' ? ': ' + bond.word(event.why) : ''
				])
			]);
		};

		dom.content(this.history, [
			E('ul', { 'class': 'bd-events' }, events.slice(0, this.all ? 200 : FEW).map(item)),
			events.length > FEW ? E('div', { 'class': 'bd-actions' }, [
				E('button', { 'class': 'btn cbi-button', 'data-show': '', 'click': () => {
					this.all = !this.all;
					this.showEvents();
				} }, [ this.all ? _('Show fewer') : _('Show all %d').format(events.length) ])
			]) : ''
		]);
	},

	/* A speed test goes on in the background of the router: the page looks how far it is until it has ended. */
	testSpeed() {
		return bond.startSpeedTest().then(() => this.watchSpeedTest());
	},

	watchSpeedTest() {
		return bond.speedTestStatus().then(test => {
			this.tested = test;
			this.showSpeedTest(test);
		});
	},

	/* Round trips; then the bond, then each link alone, each down and up; round trips under load at last. */
	showSpeedTest({ running, reports, error }) {
		const last = (reports || [])[reports.length - 1] || {};
		const done = (reports || []).reduce((share, report) => report.progress ?? share, 0);
		const rows = new Map();

		for (const report of reports || [])
			if (report.bits_per_second != null) {
				const where = report.link || _('Bond');

				rows.set(where, (rows.get(where) || []).concat('%s %s'.format(
					report.direction === 'download' ? '↓' : '↑', bond.rate(report.bits_per_second))));
			}

		const results = [ ...rows ].map(([ where, rates ]) => [ where, rates.join(' · ') ]);

		if (last.idle_ms != null)
			results.push([ _('Delay'), last.loaded_ms == null ? bond.ms(last.idle_ms)
				: _('%s, under load %s').format(bond.ms(last.idle_ms), bond.ms(last.loaded_ms)) ]);

		const phase = {
			latency: _('Measuring the delay …'),
			download: _('Measuring the download: %s').format(last.link || _('Bond')),
			upload: _('Measuring the upload: %s').format(last.link || _('Bond'))
		}[last.phase] || _('Starting …');

		this.speedTest.disabled = running;
		this.test.style.display = '';
		dom.content(this.test, [
			E('h3', [ _('Speed test') ]),
			running ? E('p', [ phase, last.rate == null ? '' : ' · ' + bond.rate(last.rate) ]) : '',
			running ? bar(done) : '',
			!running && last.phase !== 'done' ? E('p', { 'class': 'bd-bad' }, [ E('span', { 'class': 'bd-word' }, [
				_('The speed test failed: %s').format((error || _('it ended early')).replace(/^(bonding: )?speedtest: /, ''))
			]) ]) : '',
			results.length ? pairs(results) : ''
		]);
	}
});
