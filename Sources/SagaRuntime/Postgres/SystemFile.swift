import Glibc

/// Small blocking file operations of start-up code.
enum SystemFile {
    /// The text of a small file; `nil` if it can't be read.
    static func read(_ path: String, limit: Int = 1 << 16) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        return Self.read(descriptor: descriptor, limit: limit)
    }

    /// Reads from the descriptor's beginning or, for what can't seek, from where it stands.
    static func read(descriptor: Int32, limit: Int = 1 << 16) -> String? {
        _ = lseek(descriptor, 0, SEEK_SET)
        var bytes = [UInt8](repeating: 0, count: limit)
        var count = 0
        while count < limit {
            let got = bytes.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress! + count, limit - count) }
            if got < 0 && errno == EINTR { continue }
            if got < 0 { return nil }
            if got == 0 { break }
            count += got
        }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    /// Writes the whole text at the descriptor's position.
    static func write(_ text: String, descriptor: Int32) -> Bool {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }

    /// Replaces the file's content; false if that fails.
    static func write(_ text: String, to path: String, mode: mode_t) -> Bool {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return Self.write(text, descriptor: descriptor)
    }

    /// Makes a directory and those above it, unless they exist. Those above are open to others (0755).
    ///
    /// - Returns: false, with `lastError`, if the directory does not exist afterwards.
    static func makeDirectories(_ path: String, mode: mode_t) -> Bool {
        if path.isEmpty || path.utf8.contains(0) {
            errno = EINVAL
            return false
        }
        if mkdir(path, mode) == 0 { return true }
        if errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            guard Self.makeDirectories(String(path[..<slash]), mode: 0o755) else { return false }
            if mkdir(path, mode) == 0 { return true }
        }
        guard errno == EEXIST else { return false }
        var info = stat()
        guard stat(path, &info) == 0 else { return false }
        if info.st_mode & S_IFMT == S_IFDIR { return true }
        errno = ENOTDIR
        return false
    }

    /// The names in a directory, in no order; none if it can't be read.
    static func names(in path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }
    static func isExecutable(_ path: String) -> Bool { access(path, X_OK) == 0 }

    /// The meaning of `errno` right after a failed call.
    static var lastError: String { String(cString: strerror(errno)) }
}

extension String {
    func trimmingASCIIWhitespace() -> String {
        let isSpace: (UInt8) -> Bool = { $0 == 32 || (9...13).contains($0) }
        var view = self.utf8[...]
        while let first = view.first, isSpace(first) { view = view.dropFirst() }
        while let last = view.last, isSpace(last) { view = view.dropLast() }
        return String(Substring(view))
    }
}
