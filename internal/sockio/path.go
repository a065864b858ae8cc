package sockio

// MaxPath is the longest path of a Unix socket, in bytes: sun_path of struct sockaddr_un has 108, and many programs end
// it with a NUL (unix(7)).
const MaxPath = 107
