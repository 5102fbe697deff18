'use strict';
'require baseclass';

/*
 * The chart of the last minutes, as SVG: what came in per link, stacked upwards; what went out, stacked downwards; below
 * it the round-trip time of each link.
 */

const SVG = 'http://www.w3.org/2000/svg';

/* Drawn for this width at least, so that letters keep their size on a phone. */
const MIN_WIDTH = 320;
/* Bits a second that fill the chart at least: an idle line's probes are not to look like a storm. */
const LEAST = 400e3;
const LEFT = 4, RIGHT = 4, TOP = 16, RATES = 190, GAP = 26, DELAYS = 74, BOTTOM = 20;

function node(name, attributes, text) {
	const element = document.createElementNS(SVG, name);

	for (const key in attributes)
		element.setAttribute(key, attributes[key]);

	if (text != null)
		element.appendChild(document.createTextNode(text));

	return element;
}

/* The next larger one of 1, 2, 2.5 or 5 times a power of ten. */
function round(value) {
	const power = Math.pow(10, Math.floor(Math.log10(value)));

	return [ 1, 2, 2.5, 5, 10 ].map(step => step * power).find(step => step >= value * 0.999);
}

class Chart {
	/* `span`: milliseconds that are shown; `rate` and `ms` write figures. */
	constructor(span, rate, ms) {
		this.span = span;
		this.rate = rate;
		this.ms = ms;
		this.samples = [];
		this.svg = node('svg', { 'role': 'img', 'aria-label': _('Rates and round-trip times of the last minutes') });
	}

	/* Takes `[ { key, colour, rx, tx, rtt } ]` at a moment; forgets what is out of sight. */
	push(time, links) {
		const oldest = time - this.span - 15000;

		this.samples = this.samples.filter(sample => sample.time > oldest);
		this.samples.push({ time, links: Object.fromEntries(links.map(link => [ link.key, link ])) });
		this.order = links.map(link => [ link.key, link.colour ]);
		this.now = time;
	}

	clear() {
		this.samples = [];
	}

	draw() {
		const width = Math.max(this.svg.parentNode?.clientWidth || 0, MIN_WIDTH);
		const height = TOP + RATES + GAP + DELAYS + BOTTOM;
		const x = time => width - RIGHT - (this.now - time) / this.span * (width - LEFT - RIGHT);
		const shown = this.runs();
		const peaks = { rx: 0, tx: 0, rtt: 0 };

		for (const sample of shown.flat())
			for (const way in peaks) {
				const values = this.order.map(([ key ]) => sample.links[key]?.[way] || 0);

				peaks[way] = Math.max(peaks[way], way === 'rtt' ? Math.max(...values) : values.reduce((a, b) => a + b, 0));
			}

		peaks.rx = Math.max(peaks.rx, LEAST);
		peaks.tx = Math.max(peaks.tx, LEAST / 4);

		/* One scale both ways; neither way gets less than a fifth of the height. */
		const share = Math.min(Math.max(peaks.tx / (peaks.rx + peaks.tx), 0.2), 0.8);
		const zero = TOP + RATES * (1 - share);
		const scale = Math.min((zero - TOP) / peaks.rx, (TOP + RATES - zero) / peaks.tx);
		const bottom = TOP + RATES + GAP + DELAYS;
		const slowest = round(Math.max(peaks.rtt, 10) * 1.1);

		this.svg.setAttribute('viewBox', [ 0, 0, width, height ].join(' '));
		this.svg.setAttribute('height', height);
		this.svg.replaceChildren();

		for (const run of shown) {
			this.drawStack(run, 'rx', x, zero, -scale);
			this.drawStack(run, 'tx', x, zero, scale);
			this.drawDelays(run, x, bottom, DELAYS / slowest);
		}

		this.drawTimes(x, bottom, width);
		this.drawScale(zero, scale, width);

		this.line(LEFT, zero, width - RIGHT, zero, 'bd-axis');
		this.line(LEFT, bottom, width - RIGHT, bottom, 'bd-axis');
		this.line(LEFT, bottom - DELAYS, width - RIGHT, bottom - DELAYS, 'bd-grid');
		this.text(width - RIGHT, 11, _('Download per link'), 'end');
		this.text(width - RIGHT, TOP + RATES - 3, _('Upload per link'), 'end');
		this.text(width - RIGHT, bottom - DELAYS - 5, _('Round-trip time'), 'end');
		this.text(LEFT, bottom - DELAYS - 5, this.ms(slowest));
	}

	/* The samples in runs without a pause, so that a pause is not drawn as if it were traffic. */
	runs() {
		const runs = [];
		let last = -Infinity;

		for (const sample of this.samples) {
			if (sample.time - last > 15000)
				runs.push([]);

			runs[runs.length - 1].push(sample);
			last = sample.time;
		}

		return runs;
	}

	drawTimes(x, bottom, width) {
		for (let minutes = 1; minutes * 60000 < this.span; minutes++) {
			const at = x(this.now - minutes * 60000);

			this.line(at, TOP, at, bottom, 'bd-grid');

			/* Every second one has room on a narrow screen. */
			if (width > 480 || minutes % 2 === 0)
				this.text(at, bottom + 14, _('−%d min').format(minutes), 'middle');
		}

		this.text(width - RIGHT, bottom + 14, _('now'), 'end');
	}

	drawScale(zero, scale, width) {
		const room = Math.max(zero - TOP, TOP + RATES - zero) / scale;
		const step = round(room / 3.2);

		for (let value = step; value * scale <= zero - TOP + 1; value += step) {
			this.line(LEFT, zero - value * scale, width - RIGHT, zero - value * scale, 'bd-grid');
			this.text(LEFT, zero - value * scale + (zero - value * scale < TOP + 8 ? 11 : -3), this.rate(value));
		}

		for (let value = step; value * scale <= TOP + RATES - zero + 1; value += step) {
			this.line(LEFT, zero + value * scale, width - RIGHT, zero + value * scale, 'bd-grid');
			this.text(LEFT, zero + value * scale - 3, this.rate(value));
		}
	}

	drawStack(run, way, x, zero, scale) {
		const base = run.map(() => 0);

		for (const [ key, colour ] of this.order) {
			const lower = run.map((sample, index) => [ x(sample.time), zero + base[index] * scale ]);
			const upper = run.map((sample, index) => {
				base[index] += sample.links[key]?.[way] || 0;

				return [ x(sample.time), zero + base[index] * scale ];
			});

			this.svg.appendChild(node('path', {
				'd': 'M' + upper.concat(lower.reverse()).map(point => point.map(value => value.toFixed(1)).join(' ')).join('L') + 'Z',
				'fill': colour, 'fill-opacity': way === 'rx' ? 0.82 : 0.55, 'data-link': key, 'data-way': way
			}));
		}
	}

	drawDelays(run, x, bottom, scale) {
		for (const [ key, colour ] of this.order) {
			let path = '', pen = 'M';

			for (const sample of run) {
				const rtt = sample.links[key]?.rtt;

				if (rtt == null) {
					pen = 'M';
					continue;
				}

				path += '%s%s %s'.format(pen, x(sample.time).toFixed(1), (bottom - rtt * scale).toFixed(1));
				pen = 'L';
			}

			this.svg.appendChild(node('path', {
				'd': path, 'fill': 'none', 'stroke': colour, 'stroke-width': 1.8, 'stroke-linejoin': 'round',
				'data-link': key, 'data-way': 'rtt'
			}));
		}
	}

	line(x1, y1, x2, y2, kind) {
		this.svg.appendChild(node('line', { x1, y1, x2, y2, 'class': kind }));
	}

	text(x, y, text, anchor) {
		this.svg.appendChild(node('text', { x, y, 'text-anchor': anchor || 'start' }, text));
	}
}

return baseclass.extend({ Chart });
