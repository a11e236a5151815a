import Logging
import RPCTransport
import SagaRuntime

/// Makes methods of handlers: messages in and out, errors as statuses, a line in the audit log where something changes.
protocol MethodMaking: Sendable {
    var audit: AuditLog { get }
    var logger: Logger { get }
}

extension MethodMaking {
    /// What a request may have, far above the largest that is valid: whoever calls, known or not, makes the server hold
    /// as much.
    static var maximumRequestBytes: Int { 16 * 1024 }

    func unary<Request: ProtobufMessage, Response: ProtobufMessage>(
        _ name: String, maximumBytes: Int = Self.maximumRequestBytes,
        _ handler: @escaping @Sendable (Request, Caller, RPCContext) async throws -> Response
    ) -> RPCMethod {
        .unary(name, maximumMessageBytes: maximumBytes) { message, context in
            do {
                let response = try await handler(Request(decoding: message), try context.caller, context)
                return RPCReply(message: response.encoded())
            } catch {
                self.logIfInternal(error, of: name)
                throw RPCError.of(error)
            }
        }
    }

    /// A method that changes something: it leaves a line in the audit log, whatever comes of it.
    func changing<Request: ProtobufMessage, Response: ProtobufMessage>(
        _ name: String, maximumBytes: Int = Self.maximumRequestBytes,
        _ handler: @escaping @Sendable (Request, Caller, RPCContext, AuditTrail) async throws -> Response
    ) -> RPCMethod {
        .unary(name, maximumMessageBytes: maximumBytes) { message, context in
            let trail = AuditTrail()
            do {
                let response = try await handler(Request(decoding: message), try context.caller, context, trail)
                await self.audit.ended(context, .ok, trail)
                return RPCReply(message: response.encoded())
            } catch {
                self.logIfInternal(error, of: name)
                let error = RPCError.of(error)
                await self.audit.ended(context, RPCError.code(of: error), trail)
                throw error
            }
        }
    }

    /// What callers are told nothing about stands in the log.
    func logIfInternal(_ error: any Error, of method: String) {
        switch error {
        case SagaRuntimeError.interrupted(_, let cause): self.logIfInternal(cause, of: method)
        case SagaRuntimeError.unreadable, SagaRuntimeError.unknownType, SagaRuntimeError.refused:
            self.logger.log(.error, cause: "rpc \(method)", "\(method) failed: \(error)")
        default: break
        }
    }

    func unimplemented(_ name: String, changes: Bool = true) -> RPCMethod {
        .unary(name, maximumMessageBytes: Self.maximumRequestBytes) { _, context in
            if changes { await self.audit.refused(context, .unimplemented) }
            throw RPCError(.unimplemented, "\(name) is not there yet")
        }
    }
}
