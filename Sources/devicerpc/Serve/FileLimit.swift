import Glibc

/// RLIMIT_NOFILE: how many files and sockets this process may have open.
enum FileLimit {
    /// Takes as many as the system allows, in place of the shell's cautious default.
    ///
    /// - Returns: how many that is.
    static func raise() -> Int {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        // Fails only for a resource that the kernel doesn't know.
        guard getrlimit(resource, &limit) == 0 else { return 1024 }
        if limit.rlim_cur < limit.rlim_max {
            var raised = limit
            raised.rlim_cur = limit.rlim_max
            // EPERM: a sandbox that forbids it. What was allowed stays.
            if setrlimit(resource, &raised) == 0 { limit = raised }
        }
        return Int(clamping: limit.rlim_cur)
    }
}
