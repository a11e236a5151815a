// A user service for load tests: counts quota reports, honours Idempotency-Key, forgets everything when it ends.
//
// usage: ledger PORT      (0: any; prints the port)
//
// POST …/usage with Idempotency-Key is applied once per key and answered 200 ever after. With X-Compensates it takes
// back what was applied under that key, and that key is refused (409) if it comes afterwards.
// GET /totals answers {"requests": …, "applied": …, "undone": …}.
//
// One thread, epoll, HTTP/1.1 with keep-alive and Content-Length; no TLS, no chunks. Only for 127.0.0.1.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { maximum_events = 256, maximum_request = 1 << 16 };

// ---- the ledger: keys and what became of them, open addressing ----

enum state { applied = 1, taken_back = 2 };

struct entry {
    char *key;  // null: free
    size_t length;
    enum state state;
};

static struct entry *entries;
static size_t capacity = 1 << 16, used;
static unsigned long requests, applied_count, undone_count;

static uint64_t hash(const char *key, size_t length) {
    uint64_t value = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) value = (value ^ (unsigned char)key[i]) * 0x100000001b3u;
    return value;
}

static struct entry *slot(const char *key, size_t length) {
    for (size_t i = hash(key, length) & (capacity - 1);; i = (i + 1) & (capacity - 1)) {
        struct entry *entry = &entries[i];
        if (!entry->key || (entry->length == length && !memcmp(entry->key, key, length))) return entry;
    }
}

static void *checked(void *memory) {
    if (!memory) {
        fputs("ledger: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static void grow(void) {
    struct entry *old = entries;
    size_t count = capacity;
    capacity *= 2;
    entries = checked(calloc(capacity, sizeof *entries));
    for (size_t i = 0; i < count; i++)
        if (old[i].key) *slot(old[i].key, old[i].length) = old[i];
    free(old);
}

static void book(struct entry *entry, const char *key, size_t length, enum state state) {
    if (!entry->key) {
        entry->key = checked(malloc(length));
        memcpy(entry->key, key, length);
        entry->length = length;
        used++;
    }
    entry->state = state;
    if (used * 2 > capacity) grow();
}

// ---- HTTP ----

struct connection {
    int socket;
    size_t length;
    char bytes[maximum_request];
};

// The value of a header in the head; its length, or 0 if it is not there.
static size_t header(const char *head, const char *end, const char *name, const char **value) {
    size_t name_length = strlen(name);
    for (const char *line = memchr(head, '\n', (size_t)(end - head)); line && line + 1 < end;
         line = memchr(line, '\n', (size_t)(end - line))) {
        line++;
        if ((size_t)(end - line) <= name_length || line[name_length] != ':' || strncasecmp(line, name, name_length))
            continue;
        const char *start = line + name_length + 1, *stop = memchr(start, '\r', (size_t)(end - start));
        if (!stop) return 0;
        while (start < stop && *start == ' ') start++;
        *value = start;
        return (size_t)(stop - start);
    }
    return 0;
}

// Treats one request; returns the status of the answer.
static int report(const char *head, const char *end) {
    const char *key, *increment;
    size_t key_length = header(head, end, "idempotency-key", &key);
    if (!header(head, end, "x-service-token", &increment)) return 401;
    if (!key_length) return 400;
    size_t increment_length = header(head, end, "x-compensates", &increment);
    if (increment_length) {
        struct entry *entry = slot(increment, increment_length);
        if (entry->key && entry->state == applied) undone_count++;
        book(entry, increment, increment_length, taken_back);
        return 200;
    }
    struct entry *entry = slot(key, key_length);
    if (entry->key) return entry->state == applied ? 200 : 409;
    book(entry, key, key_length, applied);
    applied_count++;
    return 200;
}

static size_t answer(char *out, size_t room, const char *head, const char *end) {
    char body[160];
    int status = 200;
    if (!strncmp(head, "GET /totals ", 12)) {
        snprintf(body, sizeof body, "{\"requests\":%lu,\"applied\":%lu,\"undone\":%lu}", requests, applied_count,
                 undone_count);
    } else {
        requests++;
        status = strncmp(head, "POST ", 5) ? 404 : report(head, end);
        snprintf(body, sizeof body, "{\"success\":%s}", status == 200 ? "true" : "false");
    }
    return (size_t)snprintf(out, room,
                            "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", status,
                            status == 200 ? "OK" : "Refused", strlen(body), body);
}

// Answers all whole requests that have arrived. False: the connection is over.
static int serve(struct connection *connection) {
    ssize_t count = recv(connection->socket, connection->bytes + connection->length,
                         maximum_request - connection->length, 0);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    if (count == 0) return 0;
    connection->length += (size_t)count;
    size_t begin = 0;
    while (begin < connection->length) {
        char *head = connection->bytes + begin, out[512];
        char *end = memmem(head, connection->length - begin, "\r\n\r\n", 4);
        if (!end) break;
        const char *text;
        size_t size = 0, digits = header(head, end + 2, "content-length", &text);
        for (size_t i = 0; i < digits && text[i] >= '0' && text[i] <= '9'; i++) size = size * 10 + (size_t)(text[i] - '0');
        size_t whole = (size_t)(end - head) + 4 + size;
        if (size > maximum_request || whole > maximum_request) return 0;
        if (connection->length - begin < whole) break;
        size_t length = answer(out, sizeof out, head, end + 2);
        // Small answers to clients that read: a short write means a client that doesn't.
        if (send(connection->socket, out, length, MSG_NOSIGNAL) != (ssize_t)length) return 0;
        begin += whole;
    }
    memmove(connection->bytes, connection->bytes + begin, connection->length - begin);
    connection->length -= begin;
    return connection->length < maximum_request;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: ledger PORT\n", stderr);
        return 2;
    }
    entries = checked(calloc(capacity, sizeof *entries));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024) ||
        getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("ledger");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[maximum_events];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poll, events, maximum_events, -1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection) {
                if (!serve(connection)) {
                    close(connection->socket);
                    free(connection);
                }
                continue;
            }
            int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (client < 0) continue;
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            connection = checked(malloc(sizeof *connection));
            connection->socket = client;
            connection->length = 0;
            event = (struct epoll_event){.events = EPOLLIN, .data.ptr = connection};
            epoll_ctl(poll, EPOLL_CTL_ADD, client, &event);
        }
    }
}
