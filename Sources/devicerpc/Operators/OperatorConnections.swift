import NIOCore
import Synchronization

/// Keeps the connections of the operators' port few: beyond the bound, the one that has said nothing for longest is closed. So
/// a probe always gets through, whoever else is connected.
final class OperatorConnections: Sendable {
    private struct State {
        var connections: [ObjectIdentifier: (channel: any Channel, heardAt: NIODeadline)] = [:]
    }

    private let maximum: Int
    private let onClosed: @Sendable () -> Void
    private let state = Mutex(State())

    /// - Parameter onClosed: told of each connection that had to go.
    init(maximum: Int, onClosed: @escaping @Sendable () -> Void) {
        self.maximum = maximum
        self.onClosed = onClosed
    }

    func handler() -> any RemovableChannelHandler { Handler(self) }

    private func heard(_ channel: any Channel) {
        let quietest = self.state.withLock { state -> (any Channel)? in
            state.connections[ObjectIdentifier(channel)] = (channel, .now())
            guard state.connections.count > self.maximum,
                let quietest = state.connections.min(by: { $0.value.heardAt < $1.value.heardAt })
            else { return nil }
            state.connections[quietest.key] = nil
            return quietest.value.channel
        }
        guard let quietest else { return }
        self.onClosed()
        quietest.close(promise: nil)
    }

    private func ended(_ channel: any Channel) {
        self.state.withLock { $0.connections[ObjectIdentifier(channel)] = nil }
    }

    private final class Handler: ChannelInboundHandler, RemovableChannelHandler {
        typealias InboundIn = NIOAny
        typealias InboundOut = NIOAny

        private let connections: OperatorConnections

        init(_ connections: OperatorConnections) { self.connections = connections }

        func channelActive(context: ChannelHandlerContext) {
            self.connections.heard(context.channel)
            context.fireChannelActive()
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            self.connections.heard(context.channel)
            context.fireChannelRead(data)
        }

        func channelInactive(context: ChannelHandlerContext) {
            self.connections.ended(context.channel)
            context.fireChannelInactive()
        }
    }
}
