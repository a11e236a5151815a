import Glibc
import Testing

@testable import SagaRuntime

@Suite struct ChildProcessTests {
    /// A server that lives on held a connection of ours open: its client waited for ever for the end.
    @Test func inheritsNoDescriptor() throws {
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)  // without close-on-exec, as some library may open one
        defer { close(ends[0]) }
        let child = try ChildProcess.spawn(["sleep", "60"]) { actions in
            posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        }
        defer {
            kill(child, SIGKILL)
            var status: Int32 = 0
            waitpid(child, &status, 0)
        }
        close(ends[1])
        var state = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
        #expect(poll(&state, 1, 3000) == 1)
        #expect(Int32(state.revents) & POLLHUP != 0)
    }

    @Test func tellsWhyNothingRuns() {
        #expect(throws: ChildProcess.Errno.self) {
            try ChildProcess.spawn(["/nowhere/at-all"]) { _ in }
        }
    }
}
