import Glibc

/// Descriptors 0, 1 and 2.
enum StandardDescriptors {
    /// A program may be started without them. The next file or connection that it opens would then take their numbers, and get
    /// what is meant for people.
    static func ensureOpen() {
        while true {
            // The lowest number that is free.
            let descriptor = open("/dev/null", O_RDWR)
            if descriptor > STDERR_FILENO { close(descriptor) }
            if descriptor < 0 || descriptor > STDERR_FILENO { return }
        }
    }
}
