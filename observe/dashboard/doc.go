// Package dashboard serves a page about a user's networks to that user's browser: a graph, live rates, flows, names
// asked for, refusals and published ports, and what can be done about them.
//
// # The central idea
//
// The server is a client of the daemon's API, in a process of its own, and not a proxy of it: it answers one request
// for what is shown, which it makes of the daemon's answers field by field, and does a fixed list of typed operations
// (Source).
// A loopback address is open to all users of the machine and to all sites in the user's browser. What keeps them out:
//
//   - The link has a secret, once, for a few minutes, behind the # where no proxy and no log sees it. The page trades
//     it for a cookie (HttpOnly, SameSite=Strict) and a key that it keeps to its own origin (sessionStorage). Data and
//     operations want both: browsers send cookies to all ports of a host, so a cookie alone shows nothing.
//   - Host has to be the address that is listened on, which a name that was rebound to it is not (DNS rebinding).
//     Origin and Sec-Fetch-Site have to be the page's own. No CORS header is ever sent.
//   - The Content-Security-Policy lets the page load nothing but its own files, and nobody frame it. The page makes
//     text of what containers said, never markup.
//   - Headers, bodies, times and connections are bounded. Who has no session loses the oldest connection to others
//     who have none, and takes none from a page that is open.
//
// Files of the page are in page/, as they are written: there is nothing to build.
//
//	s := dashboard.New(client)
//	err := s.Serve(ctx, listener, nil, func(link string) { fmt.Println(link) })
//
// The command `usernet dashboard` calls it. It never logs in by a link twice, and never passes a request on as it came.
package dashboard
