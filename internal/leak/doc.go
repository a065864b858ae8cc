// Package leak tells tests which descriptors and goroutines of this process are there that were not before.
//
//	before := leak.Descriptors(t)
//	...
//	before.NoneLeft(t)
//
// Numbers of descriptors and goroutines prove nothing: a finalizer closes what an earlier test forgot, and what an
// earlier test has started ends, while the present one counts. So each is known by its identity, what others close or
// end does not count, and what is late is waited for. Only tests import this package.
package leak
