import Glibc

/// The server settings of the embedded PostgreSQL, for a small machine that it shares with us.
struct EmbeddedSettings {
    var isDurable: Bool
    var socketDirectory = ""
    var compressesWithLZ4 = false

    init(isDurable: Bool) { self.isDurable = isDurable }

    /// The file, in postgresql.conf's syntax.
    var text: String {
        var lines = [
            "# Written at each start. Own settings: postgresql.auto.conf (ALTER SYSTEM), which is read later.",
            "listen_addresses = ''",
            "port = \(EmbeddedCluster.port)",
            "unix_socket_directories = \(Self.quotedDirectory(self.socketDirectory))",
            "unix_socket_permissions = 0700",
            "max_connections = 200",
            "shared_buffers = \(self.sharedBufferMegabytes)MB",
            "max_locks_per_transaction = 256",  // Two tables times the days kept, and a lock per index.
            "max_wal_size = 2GB",
            "checkpoint_timeout = 15min",  // Fewer full pages in the log.
            "wal_compression = \(self.compressesWithLZ4 ? "lz4" : "off")",
            "random_page_cost = 1.1",
            "jit = off",
            "max_parallel_workers_per_gather = 0",
            "timezone = 'UTC'",
            "log_timezone = 'UTC'",
            "logging_collector = on",  // One file per weekday, overwritten after a week.
            "log_filename = 'postgresql-%a.log'",
            "log_truncate_on_rotation = on",
            "log_rotation_size = 0",
        ]
        if !self.isDurable { lines += ["fsync = off", "full_page_writes = off", "logging_collector = off"] }
        return lines.joined(separator: "\n") + "\n"
    }

    /// An eighth of the memory, between 32 and 256 MB.
    private var sharedBufferMegabytes: Int {
        let bytes = Int(sysconf(Int32(_SC_PHYS_PAGES))) * Int(sysconf(Int32(_SC_PAGESIZE)))
        return max(32, min(256, bytes / (8 << 20)))
    }

    /// A list of one directory, in double quotes for the list and in single ones for the file (where backslashes
    /// escape).
    private static func quotedDirectory(_ path: String) -> String {
        var text = "'\""
        for character in path {
            switch character {
            case "'": text += "''"
            case "\\": text += "\\\\"
            case "\"": text += "\"\""
            default: text.append(character)
            }
        }
        return text + "\"'"
    }
}
