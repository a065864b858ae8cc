// Package top shows what containers do on their networks, as top(1) shows processes: on the whole screen of a terminal,
// or as one plain sample.
//
// The central idea: State holds two samples of the daemon and what the user has chosen; Key and Update change it,
// Render makes lines of text of it for any size. None of these knows a terminal, so that tests need none. Run joins
// them to one (package tcell).
//
//	s := top.New()
//	s.Update(sample)
//	lines := s.Render(80, 24)
//
// The command `usernet top` calls it. It never asks the daemon for more than one sample at a time, and changes nothing
// but what a confirmed key closes.
package top
