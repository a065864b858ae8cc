/* lookup NAME: what the C library's resolver says, an address a line, or the error. Built with musl, whose resolver asks
 * all servers at once, and treats search domains and "no such record" in its own way. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *a;
	char text[INET6_ADDRSTRLEN];
	int err = argc == 2 ? getaddrinfo(argv[1], NULL, &hints, &list) : EAI_FAIL;

	if (err) {
		puts(gai_strerror(err));
		return 1;
	}
	for (a = list; a; a = a->ai_next) {
		void *addr = a->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
						     : (void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
		puts(inet_ntop(a->ai_family, addr, text, sizeof text));
	}
	return 0;
}
