import Glibc

/// The proof that a predecessor is dead: whoever holds this lock is the only process of its data directory.
///
/// The file names the last holder and the boot of the machine. The kernel drops the lock with the process, however it
/// dies.
final class InstanceLock: Sendable {
    /// An instance, as one database knows it.
    struct Holder: Sendable, Equatable {
        var instanceID: Int64
        /// `saga_instance.nonce`: in another database the same id is somebody else.
        var nonce: String
    }

    private let descriptor: Int32

    private init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(self.descriptor) }

    /// Takes the lock of a data directory, which is made if it is missing.
    static func acquire(in directory: String) throws(InstanceLeaseError) -> InstanceLock {
        guard SystemFile.makeDirectories(directory, mode: geteuid() == 0 ? 0o711 : 0o700) else {
            throw InstanceLeaseError(
                description: "DEVICERPC_DATA_DIR: can't make \(directory): \(SystemFile.lastError)")
        }
        let path = directory + "/instance.lock"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw InstanceLeaseError(description: "DEVICERPC_DATA_DIR: can't open \(path): \(SystemFile.lastError)")
        }
        // EWOULDBLOCK: held by another process. EINTR, ENOLCK: no lock, no start. A child that its holder has just forked
        // holds it too, until it executes its program: hence the few tries, which only a start that fails waits for.
        var isLocked = flock(descriptor, LOCK_EX | LOCK_NB) == 0
        for _ in 0..<20 where !isLocked {
            usleep(25_000)
            isLocked = flock(descriptor, LOCK_EX | LOCK_NB) == 0
        }
        guard isLocked else {
            close(descriptor)
            throw InstanceLeaseError(
                description:
                    "DEVICERPC_DATA_DIR: another process is running in \(directory); every replica needs its own")
        }
        return InstanceLock(descriptor: descriptor)
    }

    /// The instance that the file names, if it was on this same boot of this machine: it is dead, since we hold the
    /// lock.
    func predecessor() -> Holder? {
        guard let text = SystemFile.read(descriptor: self.descriptor, limit: 256), let boot = BootTime.bootID else {
            return nil
        }
        let words = text.split(whereSeparator: \.isWhitespace).map(String.init)
        guard words.count == 3, words[1] == boot, let instanceID = Int64(words[0]) else { return nil }
        return Holder(instanceID: instanceID, nonce: words[2])
    }

    /// Writes down who holds the lock now. A file that can't be written proves nothing, and costs no more than the wait
    /// for the lease.
    func record(_ holder: Holder) {
        ftruncate(self.descriptor, 0)
        lseek(self.descriptor, 0, SEEK_SET)
        _ = SystemFile.write(
            "\(holder.instanceID) \(BootTime.bootID ?? "unknown") \(holder.nonce)\n", descriptor: self.descriptor)
        fsync(self.descriptor)
    }
}
