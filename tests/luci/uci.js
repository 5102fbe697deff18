/* The format of /etc/config, as far as the tests' files use it. */

const WORD = /'((?:[^']|'\\'')*)'|"((?:[^"\\]|\\.)*)"|([^\s'"#]+)/y;

function words(line) {
	const found = [];
	let at = 0;

	while (at < line.length) {
		if (/\s/.test(line[at])) {
			at++;
			continue;
		}

		if (line[at] === '#')
			break;

		WORD.lastIndex = at;

		const match = WORD.exec(line);

		if (!match)
			throw new Error(`not UCI: ${line}`);

		found.push(match[1]?.replaceAll("'\\''", "'") ?? match[2] ?? match[3]);
		at = WORD.lastIndex;
	}

	return found;
}

export function parseUci(text) {
	const sections = [];

	for (const line of text.split('\n')) {
		const [ keyword, name, value ] = words(line);
		const section = sections.at(-1);

		switch (keyword) {
		case 'config':
			sections.push({ '.type': name, '.name': value ?? `anonymous${sections.length}`, '.anonymous': value === undefined, '.index': sections.length });
			break;
		case 'option':
			section[name] = value;
			break;
		case 'list':
			section[name] = [ ...[ section[name] ?? [] ].flat(), value ];
		}
	}

	return sections;
}

const quote = value => `'${String(value).replaceAll("'", "'\\''")}'`;

export function printUci(sections) {
	let text = '';

	for (const section of sections) {
		text += `\nconfig ${section['.type']}${section['.anonymous'] ? '' : ' ' + quote(section['.name'])}\n`;

		for (const [ option, value ] of Object.entries(section)) {
			if (option.startsWith('.'))
				continue;

			for (const item of [ value ].flat())
				text += `\t${Array.isArray(value) ? 'list' : 'option'} ${option} ${quote(item)}\n`;
		}
	}

	return text;
}
