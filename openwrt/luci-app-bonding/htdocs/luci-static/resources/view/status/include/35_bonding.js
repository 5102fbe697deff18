'use strict';
'require baseclass';
'require bonding.bond as bond';

return baseclass.extend({
	title: _('Bonding'),

	/* No event is wanted: none has so large a number. */
	load: () => L.resolveDefault(bond.status(0x7fffffff), null),

	/* One line a link; nothing at all where the bond is not set up. */
	render(status) {
		if (!status || (!status.running && !status.configured))
			return null;

		bond.style();

		const line = (kind, name, word, text, colour) => E('div', { 'data-link': name, 'class': 'bd-' + kind }, [
			E('span', { 'class': 'bd-name', 'style': colour ? '--bd-shade:' + colour : null }, [ name ]),
			E('span', [ bond.dot(kind), E('span', { 'class': 'bd-word' }, [ word ]) ]),
			E('span', { 'class': 'bd-dim' }, [ text ])
		]);

		if (!status.running)
			return E('div', { 'class': 'bd' }, [
				E('div', { 'class': 'bd-lines' }, [
					status.enabled ? line('bad', _('Daemon'), _('not running'), '') : line('off', _('Daemon'), _('switched off'), '')
				])
			]);

		const links = bond.links(status);

		return E('div', { 'class': 'bd' }, [
			E('div', { 'class': 'bd-lines' }, links.length ? links.map(link => {
				const [ word, kind ] = bond.state(link.state);
				const alive = link.state === 'up' || link.state === 'suspect';

				return line(kind, link.key, word, alive
					? [ bond.ways(bond.rate(link.rx_rate), bond.rate(link.tx_rate)), bond.ms(link.rtt_ms) ].join(' · ')
					: bond.word(link.place.note || link.reason || ''), link.colour);
			}) : [ line('off', _('Daemon'), _('no link'), '') ])
		]);
	}
});
