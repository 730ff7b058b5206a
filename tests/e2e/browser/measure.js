// SPDX-License-Identifier: ISC
/*
 * measure: what the test of the demo measures in a page. It is an expression, evaluated to an object of
 * functions; each returns the elements that are wrong, as text.
 */
({
	/* The channels of a computed color, which is rgb() or rgba(), and its opacity. */
	color(text) {
		const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
		if (!text.startsWith("rgb"))
			throw new Error(`not a color: ${text}`);
		return { channels: [red, green, blue], alpha };
	},

	/* The color behind an element's text: its own background over those of its ancestors. */
	backdrop(element) {
		if (!element)
			return [255, 255, 255];
		const { channels, alpha } = this.color(getComputedStyle(element).backgroundColor);
		if (alpha === 1)
			return channels;
		/* The top layer has no background from the element's ancestors; neither does the canvas. */
		return this.backdrop(element.parentElement).map((below, i) => channels[i] * alpha + below * (1 - alpha));
	},

	/* WCAG 2.2, relative luminance and contrast ratio. */
	luminance(channels) {
		const [red, green, blue] = channels.map((value) => value / 255).map((value) =>
			value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
		return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
	},
	ratio(one, other) {
		const [dark, light] = [this.luminance(one), this.luminance(other)].sort((a, b) => a - b);
		return (light + 0.05) / (dark + 0.05);
	},

	visible(element) {
		const { width, height } = element.getBoundingClientRect();
		return width > 1 && height > 1 && element.checkVisibility({ visibilityProperty: true });
	},

	/* Each visible element with text of its own, and each field. */
	texts() {
		return [...document.querySelectorAll("body *")].filter((element) => this.visible(element) &&
		    (element.matches("input, select") || [...element.childNodes].some((node) =>
			node.nodeType === Node.TEXT_NODE && node.data.trim())));
	},

	lowContrast(least) {
		const found = [];
		for (const element of this.texts()) {
			const back = this.backdrop(element);
			const styles = [getComputedStyle(element)];
			if (element.matches("input"))
				styles.push(getComputedStyle(element, "::placeholder"));
			for (const { color, opacity } of styles) {
				const ratio = this.ratio(this.color(color).channels, back);
				if (ratio < least || opacity !== "1")
					found.push(`${element.outerHTML.slice(0, 80)} ${ratio.toFixed(2)} ${opacity}`);
			}
		}
		return found;
	},

	smallTargets(least) {
		return [...document.querySelectorAll("a, button, input, select")].filter((element) => {
			const { width, height } = element.getBoundingClientRect();
			return this.visible(element) && (width < least || height < least);
		}).map((element) => element.outerHTML.slice(0, 80));
	},

	/* Elements that reach beyond the right edge of the window. */
	wide() {
		return [...document.querySelectorAll("body, body *")].filter((element) =>
			this.visible(element) && element.getBoundingClientRect().right > innerWidth + 0.5)
		    .map((element) => element.outerHTML.slice(0, 80));
	},

	/*
	 * The cumulative layout shift since the page was loaded. There was no input; the browser takes the resizing
	 * of the window for one.
	 */
	async shift() {
		const entries = await new Promise((resolve) => {
			new PerformanceObserver((list) => resolve(list.getEntries())).observe({ type: "layout-shift", buffered: true });
			setTimeout(resolve, 500, []);	/* there were none */
		});
		return entries.reduce((sum, { value }) => sum + value, 0);
	},
})
