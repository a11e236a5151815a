// A load client for gRPC servers: one thread, libnghttp2, every reply checked (grpc-status, number and size of messages).
//
//   load PORT PATH BODY [connections=8] [streams=32] [seconds=1 | calls=N] [rate=R] [messages=1] [bytes=N] [tls=1]
//
// BODY is a file with the request message, unframed. Without `rate` each call that ends is followed by the next, with
// `streams` of them on each connection. With it, R calls a second are begun whatever becomes of them, and their
// latencies count from when they were due. `messages` and `bytes` are what each reply must have.
// Prints one line of JSON; exits with 1 if any call failed.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 1000, READ_SIZE = 256 * 1024, WINDOW = 64 * 1024 * 1024 };

typedef struct Connection {
    int fd;
    SSL *tls;
    nghttp2_session *session;
    int open;  // calls under way
    uint8_t *out;
    size_t out_begin, out_end, out_capacity;
} Connection;

typedef struct Call {
    Connection *connection;
    int64_t began;
    size_t sent;
    uint8_t prefix[5];
    unsigned prefix_length;
    uint64_t missing;  // bytes of the message under way
    uint64_t messages, bytes;
    int http_status, grpc_status;
    struct Call *next_free;
} Call;

static struct {
    const char *path;
    uint8_t *body;  // framed
    size_t body_size;
    int connections, streams;
    double seconds, rate;
    int64_t calls;
    uint64_t messages;
    int64_t bytes;  // -1: any
    bool tls;
    char authority[32];
} options = {.connections = 8, .streams = 32, .seconds = 1, .messages = 1, .bytes = -1};

static Connection connections[MAX_CONNECTIONS];
static Call *free_calls;
static int64_t started, finished, failed, total_messages;
static int64_t stop_at = INT64_MAX;
static uint32_t *latencies;  // of calls that were right, in units of 100 ns
static size_t latency_count, latency_capacity;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(2);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

// ---- calls ----------------------------------------------------------------------------------------------------------

static ssize_t read_body(
    nghttp2_session *session, int32_t id, uint8_t *target, size_t count, uint32_t *flags, nghttp2_data_source *source,
    void *user_data) {
    (void)session, (void)id, (void)user_data;
    Call *call = source->ptr;
    size_t left = options.body_size - call->sent, length = left < count ? left : count;
    memcpy(target, options.body + call->sent, length);
    call->sent += length;
    if (call->sent == options.body_size) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)length;
}

static nghttp2_nv field(const char *name, const char *value) {
    return (nghttp2_nv){
        (uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static void begin_call(Connection *connection, int64_t due) {
    Call *call = free_calls;
    if (call) free_calls = call->next_free; else call = malloc(sizeof *call);
    if (!call) die("out of memory");
    *call = (Call){.connection = connection, .began = due, .grpc_status = -1};
    nghttp2_nv fields[] = {
        field(":method", "POST"), field(":scheme", options.tls ? "https" : "http"), field(":path", options.path),
        field(":authority", options.authority), field("te", "trailers"), field("content-type", "application/grpc"),
        field("user-agent", "load"),
    };
    nghttp2_data_provider provider = {{.ptr = call}, read_body};
    int32_t id = nghttp2_submit_request(
        connection->session, NULL, fields, sizeof fields / sizeof *fields, &provider, call);
    if (id < 0) die("submit_request: %s", nghttp2_strerror(id));
    connection->open++;
    started++;
}

static bool may_begin(void) {
    return options.calls ? started < options.calls : now() < stop_at;
}

static void call_ended(Call *call, uint32_t error_code) {
    int64_t time = now();
    bool is_right = error_code == 0 && call->http_status == 200 && call->grpc_status == 0 && call->prefix_length == 0
        && call->missing == 0 && call->messages == options.messages
        && (options.bytes < 0 || call->bytes == (uint64_t)options.bytes);
    finished++;
    total_messages += (int64_t)call->messages;
    if (is_right) {
        if (latency_count == latency_capacity) {
            latency_capacity = latency_capacity ? latency_capacity * 2 : 1 << 20;
            latencies = realloc(latencies, latency_capacity * sizeof *latencies);
            if (!latencies) die("out of memory");
        }
        int64_t latency = (time - call->began) / 100;
        latencies[latency_count++] = latency > UINT32_MAX ? UINT32_MAX : (uint32_t)latency;
    } else if (failed++ == 0) {
        fprintf(
            stderr, "load: a call failed: reset %u, HTTP %d, grpc-status %d, %llu messages of %llu bytes\n", error_code,
            call->http_status, call->grpc_status, (unsigned long long)call->messages, (unsigned long long)call->bytes);
    }
    call->connection->open--;
    call->next_free = free_calls;
    free_calls = call;
}

// ---- session --------------------------------------------------------------------------------------------------------

static int number(const uint8_t *text, size_t length) {
    int value = 0;
    for (size_t i = 0; i < length && i < 4; i++) value = value * 10 + (text[i] - '0');
    return value;
}

static int on_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
    const uint8_t *value, size_t value_length, uint8_t flags, void *user_data) {
    (void)flags, (void)user_data;
    if (name_length != 7 && name_length != 11) return 0;
    Call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!call) return 0;
    if (name_length == 7 && !memcmp(name, ":status", 7)) call->http_status = number(value, value_length);
    if (name_length == 11 && !memcmp(name, "grpc-status", 11)) call->grpc_status = number(value, value_length);
    return 0;
}

static int on_data(
    nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t length, void *user_data) {
    (void)flags, (void)user_data;
    Call *call = nghttp2_session_get_stream_user_data(session, id);
    if (!call) return 0;
    while (length > 0) {
        if (call->missing > 0) {
            size_t piece = length < call->missing ? length : call->missing;
            call->missing -= piece, call->bytes += piece;
            data += piece, length -= piece;
            if (call->missing == 0) call->messages++;
        } else {
            call->prefix[call->prefix_length++] = *data++;
            length--;
            if (call->prefix_length == 5) {
                call->prefix_length = 0;
                const uint8_t *p = call->prefix;
                call->missing = (uint64_t)p[1] << 24 | p[2] << 16 | p[3] << 8 | p[4];
                if (call->missing == 0) call->messages++;
            }
        }
    }
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user_data) {
    Connection *connection = user_data;
    Call *call = nghttp2_session_get_stream_user_data(session, id);
    if (!call) return 0;
    call_ended(call, error_code);
    if (options.rate == 0 && may_begin()) begin_call(connection, now());
    return 0;
}

static nghttp2_session *make_session(Connection *connection) {
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks)) die("out of memory");
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session *session;
    if (nghttp2_session_client_new(&session, callbacks, connection)) die("out of memory");
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, WINDOW);
    return session;
}

// ---- sockets --------------------------------------------------------------------------------------------------------

static void connect_to(Connection *connection, int port, SSL_CTX *context) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address)) die("connect: %s", strerror(errno));
    int one = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (context) {
        connection->tls = SSL_new(context);
        SSL_set_fd(connection->tls, connection->fd);
        if (SSL_connect(connection->tls) != 1) die("the TLS handshake failed");
        const uint8_t *protocol;
        unsigned length;
        SSL_get0_alpn_selected(connection->tls, &protocol, &length);
        if (length != 2 || memcmp(protocol, "h2", 2)) die("the server did not choose h2");
    }
    fcntl(connection->fd, F_SETFL, fcntl(connection->fd, F_GETFL) | O_NONBLOCK);
    connection->session = make_session(connection);
}

// Bytes read or written; 0 if the socket isn't ready.
static size_t transfer(Connection *connection, bool is_write, void *bytes, size_t count) {
    if (connection->tls) {
        int result = is_write ? SSL_write(connection->tls, bytes, (int)count) : SSL_read(connection->tls, bytes, (int)count);
        if (result > 0) return (size_t)result;
        int error = SSL_get_error(connection->tls, result);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
        die("TLS: the connection was lost");
    }
    ssize_t result = is_write ? send(connection->fd, bytes, count, MSG_NOSIGNAL) : recv(connection->fd, bytes, count, 0);
    if (result > 0) return (size_t)result;
    if (result < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    die("the connection was lost");
    return 0;
}

static void receive(Connection *connection) {
    static uint8_t buffer[READ_SIZE];
    for (;;) {
        size_t count = transfer(connection, false, buffer, sizeof buffer);
        if (count == 0) return;
        ssize_t result = nghttp2_session_mem_recv(connection->session, buffer, count);
        if (result < 0) die("mem_recv: %s", nghttp2_strerror((int)result));
        if (!connection->tls && count < sizeof buffer) return;
    }
}

static void flush(Connection *connection) {
    for (;;) {
        while (connection->out_end - connection->out_begin < READ_SIZE) {
            const uint8_t *data;
            ssize_t count = nghttp2_session_mem_send(connection->session, &data);
            if (count < 0) die("mem_send: %s", nghttp2_strerror((int)count));
            if (count == 0) break;
            if (connection->out_end + (size_t)count > connection->out_capacity) {
                connection->out_capacity = (connection->out_end + (size_t)count) * 2;
                connection->out = realloc(connection->out, connection->out_capacity);
                if (!connection->out) die("out of memory");
            }
            memcpy(connection->out + connection->out_end, data, (size_t)count);
            connection->out_end += (size_t)count;
        }
        size_t left = connection->out_end - connection->out_begin;
        if (left == 0) return;
        size_t count = transfer(connection, true, connection->out + connection->out_begin, left);
        connection->out_begin += count;
        if (connection->out_begin == connection->out_end) connection->out_begin = connection->out_end = 0;
        if (count < left) return;
    }
}

// ---- the run --------------------------------------------------------------------------------------------------------

static void run(void) {
    int64_t begin = now(), last_progress = begin, last_finished = 0;
    stop_at = options.calls ? INT64_MAX : begin + (int64_t)(options.seconds * 1e9);
    if (options.rate == 0) {
        for (int i = 0; i < options.streams; i++)
            for (int c = 0; c < options.connections; c++)
                if (may_begin()) begin_call(&connections[c], now());
    }
    int64_t interval = options.rate > 0 ? (int64_t)(1e9 / options.rate) : 0, due = begin;
    for (;;) {
        int64_t time = now();
        while (interval && due <= time && due < stop_at && (!options.calls || started < options.calls)) {
            begin_call(&connections[started % options.connections], due);
            due += interval;
        }
        bool is_over = options.calls ? started >= options.calls : (interval ? due >= stop_at : time >= stop_at);
        if (is_over && finished == started) return;
        struct pollfd polled[MAX_CONNECTIONS];
        for (int i = 0; i < options.connections; i++) {
            flush(&connections[i]);
            polled[i] = (struct pollfd){connections[i].fd, POLLIN, 0};
            if (connections[i].out_end > 0) polled[i].events |= POLLOUT;
        }
        // With a rate this spins: sleeping costs more than the accuracy that the latencies need.
        int ready = poll(polled, (nfds_t)options.connections, interval && !is_over ? 0 : 1000);
        if (ready < 0 && errno != EINTR) die("poll: %s", strerror(errno));
        for (int i = 0; i < options.connections && ready > 0; i++)
            if (polled[i].revents & ~POLLOUT) receive(&connections[i]);
        if (finished != last_finished) last_finished = finished, last_progress = time;
        if (started > finished && time - last_progress > 30000000000LL) die("no call has ended for 30 s");
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    if (latency_count == 0) return 0;
    size_t index = (size_t)(share * (double)latency_count);
    return latencies[index < latency_count ? index : latency_count - 1] / 10.0;
}

static void read_message(const char *name) {
    FILE *file = fopen(name, "rb");
    if (!file) die("%s: %s", name, strerror(errno));
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    options.body = malloc((size_t)size + 5);
    if (!options.body || fread(options.body + 5, 1, (size_t)size, file) != (size_t)size) die("cannot read %s", name);
    fclose(file);
    uint8_t prefix[5] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
    memcpy(options.body, prefix, 5);
    options.body_size = (size_t)size + 5;
}

int main(int argc, char **argv) {
    if (argc < 4) die("usage: load PORT PATH BODY [NAME=VALUE]…");
    int port = atoi(argv[1]);
    options.path = argv[2];
    read_message(argv[3]);
    snprintf(options.authority, sizeof options.authority, "localhost:%d", port);
    for (int i = 4; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (!equals) die("%s: NAME=VALUE is expected", argv[i]);
        *equals = 0;
        const char *name = argv[i], *value = equals + 1;
        if (!strcmp(name, "connections")) options.connections = atoi(value);
        else if (!strcmp(name, "streams")) options.streams = atoi(value);
        else if (!strcmp(name, "seconds")) options.seconds = atof(value);
        else if (!strcmp(name, "calls")) options.calls = atoll(value);
        else if (!strcmp(name, "rate")) options.rate = atof(value);
        else if (!strcmp(name, "messages")) options.messages = strtoull(value, NULL, 10);
        else if (!strcmp(name, "bytes")) options.bytes = atoll(value);
        else if (!strcmp(name, "tls")) options.tls = atoi(value);
        else die("unknown option %s", name);
    }
    if (options.connections < 1 || options.connections > MAX_CONNECTIONS) die("connections: 1 to %d", MAX_CONNECTIONS);
    SSL_CTX *context = NULL;
    if (options.tls) {
        // The certificate is one of the benchmark's own: who the server is doesn't matter here.
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_alpn_protos(context, (const uint8_t *)"\x02h2", 3);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    for (int i = 0; i < options.connections; i++) connect_to(&connections[i], port, context);
    int64_t begin = now();
    run();
    double seconds = (double)(now() - begin) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, by_size);
    printf(
        "{\"calls\": %lld, \"failed\": %lld, \"messages\": %lld, \"seconds\": %.4f, \"calls_per_second\": %.1f, "
        "\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n",
        (long long)finished, (long long)failed, (long long)total_messages, seconds, (double)finished / seconds,
        percentile(0.5), percentile(0.99), percentile(1));
    return failed > 0;
}
