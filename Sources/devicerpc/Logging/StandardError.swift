import Glibc

/// Standard error, written to directly: one call of write(2) per line, so that lines of several threads don't mix.
enum StandardError {
    @Sendable static func write(_ line: String) { FileOutput.write(line, to: STDERR_FILENO) }
}

/// Standard output, written to directly and at once.
enum StandardOutput {
    @Sendable static func write(_ text: String) { FileOutput.write(text, to: STDOUT_FILENO) }
}

enum FileOutput {
    /// Writes all of `text`; gives up silently when nobody reads any more, since there is nowhere left to say so.
    static func write(_ text: String, to descriptor: Int32) {
        var text = text
        text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while let base = rest.baseAddress, !rest.isEmpty {
                let written = Glibc.write(descriptor, base, rest.count)
                if written >= 0 {
                    rest = UnsafeRawBufferPointer(rebasing: rest[written...])
                } else if errno == EAGAIN {
                    var state = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    poll(&state, 1, 1000)
                } else if errno != EINTR {
                    return
                }
            }
        }
    }
}
