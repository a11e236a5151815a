import NIOCore
import Testing

@testable import RPCTransport

@Suite struct ClientStreamMachineTests {
    private static func machine(one: Bool = false) -> ClientStreamMachine {
        ClientStreamMachine(expectsOneResponse: one, messageLimit: 100)
    }

    private static func list(_ fields: (String, String)...) -> HeaderList {
        var list = HeaderList()
        for (name, value) in fields { list.append(name.utf8, value.utf8) }
        return list
    }

    private static let headers = Self.list((":status", "200"), ("content-type", "application/grpc"), ("x-a", "1"))
    private static let ok = Self.list(("grpc-status", "0"), ("x-b", "2"))

    private static func error(_ result: ClientStreamMachine.OnHeaders) -> RPCError? {
        if case .failed(let error) = result { error } else { nil }
    }

    @Test func aWholeResponse() throws {
        var machine = Self.machine(one: true)
        guard case .ignore = machine.receivedHeaders(Self.list((":status", "103")), endStream: false) else {
            Issue.record("an informational response counts")
            return
        }
        guard case .initial(let initial) = machine.receivedHeaders(Self.headers, endStream: false) else {
            Issue.record("no initial metadata")
            return
        }
        #expect(initial.entries.map(\.name) == ["x-a"])
        var chunk = ByteBuffer(bytes: [0, 0, 0, 0, 0])
        let message = try machine.nextMessage(from: &chunk)
        #expect(message != nil)
        guard case .succeeded(let trailing) = machine.receivedHeaders(Self.ok, endStream: true) else {
            Issue.record("not succeeded")
            return
        }
        #expect(trailing.first("x-b") == "2")
        let late = machine.closed(errorCode: 0)
        #expect(late == nil)
    }

    @Test func trailersOnly() {
        var machine = Self.machine()
        let list = Self.list(
            (":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "no%21"))
        let error = Self.error(machine.receivedHeaders(list, endStream: true))
        #expect(error?.code == .notFound)
        #expect(error?.message == "no!")
    }

    @Test(arguments: [
        ("503", "text/html", RPCCode.unavailable), ("404", "text/plain", .unimplemented),
        ("200", "text/html", .unknown),
    ])
    func noGRPC(status: String, contentType: String, code: RPCCode) {
        var machine = Self.machine()
        let list = Self.list((":status", status), ("content-type", contentType))
        let error = Self.error(machine.receivedHeaders(list, endStream: false))
        #expect(error?.code == code)
        let late = machine.receivedEndOfData()
        #expect(late == nil)
    }

    @Test func badEnds() {
        var noStatus = Self.machine()
        _ = noStatus.receivedHeaders(Self.headers, endStream: false)
        let statusError = Self.error(noStatus.receivedHeaders(Self.list(("x", "y")), endStream: true))
        #expect(statusError?.code == .unknown)

        var noTrailers = Self.machine()
        _ = noTrailers.receivedHeaders(Self.headers, endStream: false)
        let trailersError = noTrailers.receivedEndOfData()
        #expect(trailersError?.code == .internal)
        let lateError = noTrailers.receivedEndOfData()
        #expect(lateError == nil)

        var unknownCode = Self.machine()
        _ = unknownCode.receivedHeaders(Self.headers, endStream: false)
        let codeError = Self.error(unknownCode.receivedHeaders(Self.list(("grpc-status", "99")), endStream: true))
        #expect(codeError?.code == .unknown)

        var none = Self.machine(one: true)
        _ = none.receivedHeaders(Self.headers, endStream: false)
        let countError = Self.error(none.receivedHeaders(Self.ok, endStream: true))
        #expect(countError?.code == .unimplemented)

        var refused = Self.machine()
        let error = refused.closed(errorCode: 7)
        #expect(error?.code == .unavailable)
        #expect(error?.progress == .refused)
    }

    @Test func twoResponsesToAUnaryCall() {
        var machine = Self.machine(one: true)
        _ = machine.receivedHeaders(Self.headers, endStream: false)
        var chunk = ByteBuffer(bytes: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        #expect(throws: RPCError(.unimplemented, "one response was expected, there were more")) {
            while try machine.nextMessage(from: &chunk) != nil {}
        }
    }
}
