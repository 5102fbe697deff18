/* Loads a module of the pages outside a browser, for those that need none. */

import fs from 'node:fs';
import path from 'node:path';

import { RESOURCES } from './paths.js';

class Base {
	static extend(properties) {
		const derived = class extends this {};

		Object.assign(derived.prototype, properties);

		return derived;
	}
}

export function loadModule(name) {
	const source = fs.readFileSync(path.join(RESOURCES, name), 'utf8');
	const made = new Function('baseclass', '_', source)(Base, text => text);

	return new made();
}
