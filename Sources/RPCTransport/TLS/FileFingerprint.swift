import Glibc

/// Tells whether a file was replaced, written to, or made readable, without reading it. Links are followed, so that a swap
/// of the link (as Kubernetes updates secrets) counts.
package struct FileFingerprint: Sendable, Equatable {
    private var device: UInt64 = 0
    private var inode: UInt64 = 0
    private var size: Int64 = 0
    private var seconds: Int64 = 0
    private var nanoseconds: Int64 = 0

    /// All zero for a file that can't be seen.
    package init(_ path: String) {
        var info = stat()
        guard stat(path, &info) == 0 else { return }
        self.device = UInt64(info.st_dev)
        self.inode = UInt64(info.st_ino)
        self.size = Int64(info.st_size)
        // Of the last change of any kind: times of writing are set back by tools that copy, and left alone by chmod.
        self.seconds = Int64(info.st_ctim.tv_sec)
        self.nanoseconds = Int64(info.st_ctim.tv_nsec)
    }
}
