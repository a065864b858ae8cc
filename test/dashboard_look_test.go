package test

import "regexp"

// webNode is the name of web on the map. It begins with what is seen there.
var webNode = regexp.MustCompile(`^web \S.*/s in, .*/s out: container running, on mynet, \d+ flows?$`)

// contrasts are the elements whose text has less contrast than 4.5 to 1 with what is behind it (WCAG 2.2, 1.4.3).
const contrasts = `
	const parse = c => c.match(/[\d.]+/g).map(Number);
	const lum = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const behind = e => {
		for (; e; e = e.parentElement) {
			const c = parse(getComputedStyle(e).backgroundColor);
			if (c.length === 3 || c[3] > 0) { return c; }
		}
		return [255, 255, 255];
	};
	const bad = [];
	for (const e of document.querySelectorAll("h1, h2, h3, p, a, button, th, td, label, input, select, #graph text")) {
		const style = getComputedStyle(e), svg = e.closest("#graph");
		const front = lum(parse(svg ? style.fill : style.color));
		const back = lum(svg ? parse(getComputedStyle(e.parentElement.querySelector("rect")).fill) : behind(e));
		const ratio = (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
		if (svg && getComputedStyle(e.parentElement).opacity !== "1") { bad.push("opacity of " + e.textContent); }
		if (ratio < 4.5) { bad.push(e.tagName + " " + e.textContent.slice(0, 30) + " " + ratio.toFixed(2)); }
	}
	return bad;`

// testAppearance looks at both schemes, at motion, and at a narrow window.
func testAppearance(b *browser) {
	for _, scheme := range []string{"light", "dark"} {
		b.prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
		var bad []string
		b.run(&bad, contrasts)
		if len(bad) > 0 {
			b.t.Errorf("%s: too little contrast: %q", scheme, bad)
		}
		dark := b.value(`getComputedStyle(document.body).backgroundColor`) == "rgb(20, 23, 27)"
		if dark != (scheme == "dark") {
			b.t.Errorf("%s is preferred; the page is dark: %v", scheme, dark)
		}
		b.run(nil, "window.scrollTo(0, 0)")
		b.screenshot("dashboard-" + scheme)
	}
	var small []string
	b.run(&small, `return [...document.querySelectorAll("button")].filter(e => e.checkVisibility())
		.filter(e => e.offsetHeight < 24 || e.offsetWidth < 24).map(e => e.textContent)`)
	if len(small) > 0 {
		b.t.Errorf("buttons that are smaller than 24 by 24 pixels (WCAG 2.2, 2.5.8): %q", small)
	}
	// An edge on which something moves, if only for a moment.
	const motion = `(() => { const p = document.querySelector("#graph path").cloneNode(); p.setAttribute("class", "busy");
		document.querySelector("#graph").append(p); const name = getComputedStyle(p).animationName; p.remove(); return name; })()`
	if got := b.value(motion); got != "none" {
		b.t.Errorf("reduced motion is preferred, and %q moves", got)
	}
	b.prefers("prefers-reduced-motion", "no-preference", "prefers-color-scheme", "light")
	if got := b.value(motion); got != "flow" {
		b.t.Errorf("an edge on which something moves has the animation %q", got)
	}
	// At a width of 320 pixels nothing but tables and the map is wider than the window (WCAG 2.2, 1.4.10).
	b.devtools("Emulation.setDeviceMetricsOverride", map[string]any{"width": 320, "height": 640, "deviceScaleFactor": 1,
		"mobile": false}, nil)
	if got := b.value("document.documentElement.scrollWidth"); got != "320" {
		b.t.Errorf("the page is %s pixels wide in a window of 320", got)
	}
	b.devtools("Emulation.clearDeviceMetricsOverride", nil, nil)
}

// testAccessibility looks at what a screen reader is told.
func testAccessibility(b *browser) {
	nodes := b.accessible()
	for _, want := range []axNode{
		{"banner", ""}, {"navigation", "Sections"}, {"main", ""}, {"search", ""}, {"heading", "usernet"},
		{"heading", "Containers"}, {"region", "Map"}, {"region", "Flows"}, {"region", "Refused"},
		{"region", "Names asked"}, {"searchbox", "Filter"}, {"button", "Pause"},
		{"group", "Containers and their networks"},
		{"table", "Containers"}, {"table", "Flows"}, {"table", "Refused"}, {"table", "Names asked"},
		{"columnheader", "Container"}, {"columnheader", "Allowed by"}, {"rowheader", "web"}, {"rowheader", "db"},
		{"button", "Disconnect web from mynet"}, {"combobox", "Container"}, {"combobox", "Network"},
		{"textbox", "Port"},
		{"form", "Publish a port"}, {"form", "Connect a container to a network"}, {"status", ""}, {"alert", ""},
		{"link", "Skip to the content"},
	} {
		if nodes[want] == 0 {
			b.t.Errorf("the accessibility tree lacks %+v", want)
		}
	}
	web := false
	for n := range nodes {
		switch n.role {
		case "button", "link", "textbox", "searchbox", "combobox", "table", "region", "navigation", "dialog":
			if n.name == "" {
				b.t.Errorf("a %s has no name", n.role)
			}
		}
		web = web || n.role == "button" && webNode.MatchString(n.name)
	}
	if !web {
		b.t.Errorf("the map does not say where web is: %v", nodes)
	}
}
