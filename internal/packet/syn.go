package packet

// Options of a TCP header (IANA, TCP parameters).
const (
	optionEnd        = 0
	optionNone       = 1
	optionMSS        = 2
	optionScale      = 3
	optionSACK       = 4
	optionTimestamps = 8
)

// PlainSYN says whether a SYN has only options that all kernels know: maximum segment size, window scale, selective
// acknowledgements and timestamps (RFC 9293, 3.2; RFC 7323; RFC 2018). Its header is whole, with its options and
// without data.
func PlainSYN(header []byte) bool {
	for options := header[TCPHeaderLen:]; len(options) > 0; {
		switch options[0] {
		case optionEnd:
			return true
		case optionNone:
			options = options[1:]
			continue
		case optionMSS, optionScale, optionSACK, optionTimestamps:
		default:
			return false
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return false
		}
		options = options[options[1]:]
	}
	return true
}
