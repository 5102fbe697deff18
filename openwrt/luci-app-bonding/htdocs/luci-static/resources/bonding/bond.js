'use strict';
'require baseclass';
'require rpc';
'require ui';

/*
 * What the pages share: calls of the ubus object `bonding`, words for its states, figures for people, and the reading of
 * a status.
 */

const call = (method, params) => rpc.declare({ object: 'bonding', method, params: params || [], reject: true });

/* A refusal comes as an answer; here it becomes an error like any other. */
const checked = (method, params) => {
	const declared = call(method, params);

	return (...values) => declared(...values).then(answer => {
		if (answer?.ok === false)
			throw new Error(answer.error || _('The daemon refused without a reason.'));

		return answer;
	});
};

const STATES = {
	up: [ _('Up'), 'good' ],
	suspect: [ _('Not answering'), 'fair' ],
	joining: [ _('Connecting'), 'fair' ],
	down: [ _('Down'), 'bad' ],
	disabled: [ _('Taken out'), 'off' ]
};

const POLICIES = {
	'adaptive': _('adaptive'),
	'weighted': _('weighted'),
	'round-robin': _('round robin'),
	'flow': _('one link a connection'),
	'active-backup': _('active and backup'),
	'redundant': _('copies on several links')
};

/* What the daemon says of a link or an event, in the reader's language. */
const WORDS = {
	'no session yet': _('no session yet'),
	'taken out by the user': _('taken out by hand'),
	'no address or route': _('no address or route'),
	'waiting for the server': _('waiting for the server'),
	'checking the client\'s address': _('checking the other end\'s address'),
	'no answer within the expected time': _('no answer within the expected time'),
	'the other end does not answer': _('the other end does not answer'),
	'the other end uses it no more': _('the other end uses it no more'),
	'no session with the other end': _('no session with the other end'),
	'the server does not answer on this link': _('the server does not answer on this link'),
	'looking for its device and address': _('looking for its device and address'),
	'its device or address is gone': _('its device or address is gone'),
	'asked for by hand': _('asked for by hand'),
	'no link is in use': _('no link is in use'),
	'no server is configured': _('no server is configured'),
	'the name has no address': _('the name of the server has no address'),
	'the bond works again': _('the bond works again'),
	'it had disappeared and was made anew': _('it had disappeared and was made anew'),
	'hook failed': _('script failed'),
	'hook skipped': _('script skipped'),
	'watchdog': _('watchdog'),
	'introduced itself': _('introduced itself'),
	'not let in': _('not let in'),
	'started': _('started'),
	'put back': _('put back'),
	'taken out': _('taken out'),
	'reconnect': _('reconnect'),
	'reloaded': _('configuration taken over'),
	'reload refused': _('configuration refused'),
	'handshake failed': _('handshake failed'),
	'mtu': _('packet size'),
	'device': _('device')
};

/* Told apart on light and dark ground, and by the colour-blind next to each other. */
const COLOURS = [ '#2f7fd1', '#e08214', '#1b9e77', '#9b6bc7', '#c94f6d', '#8c8c1f', '#17a2b8', '#a6611a' ];

/* Three digits and a unit. */
function scaled(value, units) {
	let unit = 0;

	while (value >= 999.5 && unit < units.length - 1) {
		value /= 1000;
		unit++;
	}

	return [ value.toFixed(unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2), units[unit] ];
}

return baseclass.extend({
	status: call('status', [ 'after' ]),
	speedTestStatus: call('speedtest_status'),
	link: checked('link', [ 'name', 'action' ]),
	restart: checked('restart'),
	startSpeedTest: checked('speedtest_start'),
	options: call('options'),
	check: call('check', [ 'config' ]),
	publicKey: checked('pubkey'),
	generateKey: checked('genkey', [ 'replace' ]),
	join: checked('join', [ 'line', 'wan', 'add' ]),

	/* Loads the style once; the theme's own colours are used wherever it has them. */
	style() {
		const id = 'bonding-style';

		if (!document.getElementById(id))
			document.head.appendChild(E('link', {
				'id': id, 'rel': 'stylesheet', 'href': L.resource('bonding/bond.css')
			}));
	},

	colour: index => COLOURS[index % COLOURS.length],

	/* [ word, class ] of a link's state. */
	state: name => STATES[name] || [ name, 'off' ],

	policy: name => POLICIES[name] || name,

	word: text => WORDS[text] || STATES[text]?.[0] || text,

	/* Bits a second as [ number, unit ]. */
	ratePair: bits => scaled((bits || 0) / 1000, [ 'kbit/s', 'Mbit/s', 'Gbit/s' ]),

	rate(bits) {
		return bits == null ? '–' : this.ratePair(bits).join(' ');
	},

	bytes: count => count == null ? '–' : scaled(count, [ 'B', 'kB', 'MB', 'GB', 'TB' ]).join(' '),

	ms: value => value == null ? '–' : '%s ms'.format(value < 9.95 ? value.toFixed(1) : Math.round(value)),

	percent(share) {
		if (share == null)
			return '–';

		return share > 0 && share < 0.0005 ? '< 0.1 %'
			: '%s %%'.format(share > 0 && share < 0.0995 ? (share * 100).toFixed(1) : Math.round(share * 100));
	},

	/* Figures of both ways, one beside the other. */
	ways: (down, up) => '↓ %s · ↑ %s'.format(down, up),

	/* The two largest units of a time. */
	duration(ms) {
		const seconds = Math.floor((ms || 0) / 1000);
		const parts = [
			[ Math.floor(seconds / 86400), _('%d d') ],
			[ Math.floor(seconds / 3600) % 24, _('%d h') ],
			[ Math.floor(seconds / 60) % 60, _('%d min') ],
			[ seconds % 60, _('%d s') ]
		];
		const first = parts.findIndex(([ count ]) => count > 0);

		if (first < 0)
			return _('%d s').format(0);

		return parts.slice(first, first + 2).filter(([ count ]) => count > 0)
			.map(([ count, unit ]) => unit.format(count)).join(' ');
	},

	/* Every link of every peer, with where it is and its place in the colours. */
	links(status) {
		const links = [];

		for (const peer of status.endpoint?.peers || [])
			for (const link of peer.links)
				links.push(Object.assign({
					peer: status.role === 'server' ? status.peers?.[peer.peer] : null,
					place: status.links?.[link.name] || {},
					network: status.interfaces?.[link.name]
				}, link));

		/* A link that has no place yet is not known to the core. */
		for (const name in status.links || {})
			if (!links.some(link => link.name === name))
				links.push({
					name, place: status.links[name], network: status.interfaces?.[name],
					state: status.links[name].taken_out ? 'disabled' : 'down', reason: status.links[name].note
				});

		const order = status.role === 'server' ? [] : Object.keys(status.links || {}).sort();

		links.forEach((link, index) => {
			/* What a dead link carried a moment ago is not what it carries. */
			if (link.state !== 'up' && link.state !== 'suspect')
				link.rx_rate = link.tx_rate = 0;

			link.key = (link.peer ? link.peer + '/' : '') + link.name;
			link.colour = COLOURS[Math.max(order.length ? order.indexOf(link.name) : index, 0) % COLOURS.length];
		});

		return links.sort((a, b) => a.key < b.key ? -1 : 1);
	},

	isUp: status => (status.endpoint?.peers || []).some(peer => peer.up),

	dot(kind) {
		return E('span', { 'class': 'bd-dot bd-' + kind, 'aria-hidden': 'true' });
	},

	/* Asks before `act`. The promise ends as that of `act` does, or at once where the answer is no. */
	confirm(title, text, yes, act) {
		return new Promise((resolve, reject) => {
			const answer = (words, style, then) => E('button', { 'class': 'btn ' + style, 'click': () => {
				ui.hideModal();
				then();
			} }, [ words ]);

			ui.showModal(title, [
				E('p', [ text ]),
				E('div', { 'class': 'right' }, [
					answer(_('Cancel'), '', resolve), ' ',
					answer(yes, 'cbi-button-negative important', () => act().then(resolve, reject))
				])
			]);
		});
	}
});
