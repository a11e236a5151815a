import Glibc

/// Where the server's own programs (initdb, pg_ctl, postgres) of one version are.
struct PostgresPrograms: Sendable {
    let directory: String
    let majorVersion: Int

    static let minimumVersion = 14
    private static let needed = ["initdb", "pg_ctl", "postgres"]

    func path(_ program: String) -> String { "\(self.directory)/\(program)" }

    /// Looks through PATH and the places where distributions put PostgreSQL; prefers the newest.
    ///
    /// - Parameter version: the only one that will do, for a cluster that exists.
    static func find(version: Int?, scratch: String) throws(PostgresError) -> PostgresPrograms {
        var found: [PostgresPrograms] = []
        for directory in Self.candidates() {
            guard Self.needed.allSatisfy({ SystemFile.isExecutable("\(directory)/\($0)") }) else { continue }
            let outcome = try ChildProcess.run(
                ["\(directory)/postgres", "--version"], environment: EmbeddedCluster.environment, outputPath: scratch)
            guard outcome.code == 0, let major = Self.majorVersion(in: outcome.output) else { continue }
            found.append(PostgresPrograms(directory: directory, majorVersion: major))
        }
        if let version {
            if let match = found.first(where: { $0.majorVersion == version }) { return match }
            throw PostgresError(
                .embedded,
                "the data directory was made by PostgreSQL \(version), whose programs are not installed "
                    + "(apt-get install postgresql-\(version))")
        }
        guard let newest = found.max(by: { $0.majorVersion < $1.majorVersion }) else {
            throw PostgresError(
                .embedded,
                "no PostgreSQL server is installed: initdb, pg_ctl and postgres are neither in PATH nor in "
                    + "/usr/lib/postgresql/*/bin (apt-get install postgresql-15, or set DATABASE_URL)")
        }
        guard newest.majorVersion >= Self.minimumVersion else {
            throw PostgresError(
                .embedded, "PostgreSQL \(Self.minimumVersion) or later is needed; \(newest.majorVersion) is installed")
        }
        return newest
    }

    private static func candidates() -> [String] {
        let path = getenv("PATH").map { String(cString: $0) } ?? ""
        var directories = path.split(separator: ":").map(String.init).filter { $0.hasPrefix("/") }
        for base in ["/usr/lib/postgresql", "/usr/local/lib/postgresql"] {
            guard let handle = opendir(base) else { continue }
            defer { closedir(handle) }
            while let entry = readdir(handle) {
                let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                if Int(name) != nil { directories.append("\(base)/\(name)/bin") }
            }
        }
        directories.append("/usr/local/pgsql/bin")
        return directories
    }

    /// From `postgres (PostgreSQL) 15.20 (Debian …)`.
    static func majorVersion(in text: String) -> Int? {
        for word in text.split(separator: " ") {
            if let first = word.split(separator: ".").first, let major = Int(first) { return major }
        }
        return nil
    }
}
