package filter

// services are ports that people call by name (IANA, "Service Name and Transport Protocol Port Number Registry"). The
// daemon reads no file of the machine for them.
var services = map[string]uint16{
	"bgp": 179, "bootpc": 68, "bootps": 67, "domain": 53, "domain-s": 853, "echo": 7, "ftp": 21, "ftp-data": 20,
	"http": 80, "http-alt": 8080, "https": 443, "imap": 143, "imap2": 143, "imaps": 993, "kerberos": 88, "ldap": 389,
	"ldaps": 636, "mdns": 5353, "mqtt": 1883, "mysql": 3306, "nfs": 2049, "ntp": 123, "pop3": 110, "pop3s": 995,
	"postgresql": 5432, "redis": 6379, "rsync": 873, "sip": 5060, "smtp": 25, "snmp": 161, "snmp-trap": 162, "ssh": 22,
	"submission": 587, "syslog": 514, "telnet": 23, "tftp": 69, "vxlan": 4789, "www": 80, "xmpp-client": 5222,
}

// transports are protocols above IP (IANA, "Assigned Internet Protocol Numbers").
var transports = map[string]uint32{
	"icmp": 1, "igmp": 2, "tcp": 6, "egp": 8, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "ospf": 89,
	"pim": 103, "vrrp": 112, "carp": 112, "sctp": 132,
}

// etherTypes are protocols above Ethernet that have names here.
var etherTypes = map[string]uint32{"ip": etherIPv4, "arp": etherARP, "rarp": etherRARP, "ip6": etherIPv6}

// constants are numbers with names, as pcap-filter(7) lists them.
var constants = map[string]uint32{
	"tcpflags": 13, "tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32,
	"tcp-ece": 64, "tcp-cwr": 128,
	"icmptype": 0, "icmpcode": 1, "icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5,
	"icmp-echo": 8, "icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12,
	"icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17,
	"icmp-maskreply": 18,
	"icmp6type":      0, "icmp6code": 1, "icmp6-destinationunreach": 1, "icmp6-packettoobig": 2,
	"icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4, "icmp6-echo": 128, "icmp6-echoreply": 129,
	"icmp6-multicastlistenerquery": 130, "icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132,
	"icmp6-routersolicit": 133, "icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135,
	"icmp6-neighboradvert": 136, "icmp6-redirect": 137,
}

// unsupported are words of pcap-filter(7) that are refused, with the reason.
var unsupported = map[string]string{
	"vlan": noSuchLink, "mpls": noSuchLink, "pppoed": noSuchLink, "pppoes": noSuchLink, "geneve": noSuchLink,
	"wlan": noSuchLink, "type": noSuchLink, "subtype": noSuchLink, "dir": noSuchLink, "fddi": noSuchLink,
	"tr": noSuchLink, "ppp": noSuchLink, "slip": noSuchLink, "llc": noSuchLink, "iso": noSuchLink, "atalk": noSuchLink,
	"decnet": noSuchLink, "ipx": noSuchLink, "netbeui": noSuchLink, "stp": noSuchLink, "lane": noSuchLink,
	"gateway": "it needs the machine's tables of hosts: give ether host MAC and not host ADDRESS",
	"ifname":  noMetadata, "on": noMetadata, "rnr": noMetadata, "rulenum": noMetadata, "reason": noMetadata,
	"rset": noMetadata, "ruleset": noMetadata, "srnr": noMetadata, "subrulenum": noMetadata, "action": noMetadata,
	"ifindex": noMetadata, "protochain": "give proto, which finds the header that is next to IP's",
}

const (
	noSuchLink = "no such frames pass a network of usernet, or it has no name for them: give ether proto NUMBER"
	noMetadata = "frames of usernet have no such data"
)
