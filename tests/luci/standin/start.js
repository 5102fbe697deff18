'use strict';

/* Shows the view that the test asks for; a widget of the overview as LuCI's overview does. */
(async () => {
	const { view } = window.standin;
	const dark = window.matchMedia('(prefers-color-scheme: dark)');
	const mark = () => document.documentElement.setAttribute('data-darkmode', dark.matches);

	mark();
	dark.addEventListener('change', mark);

	if (!view.startsWith('view.status.include.')) {
		await L.require(view);

		return;
	}

	const widget = await L.require(view);
	const main = document.querySelector('#maincontent');
	const { poll, dom } = { poll: await L.require('poll'), dom: await L.require('dom') };
	const body = E('div');

	dom.content(main, [ E('h3', [ widget.title ]), body ]);

	const look = async () => dom.content(body, widget.render(await widget.load()));

	await look();
	poll.add(look, 5);
})();
