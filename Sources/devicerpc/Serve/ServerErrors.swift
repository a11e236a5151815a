import DeviceProvisioning
import RPCTransport
import SagaRuntime

/// Turns what ends a server into words and an exit code.
enum ServerErrors {
    /// - Parameter write: takes what there is to say.
    static func reported<T>(
        as output: OutputFormat = .text, write: (String) -> Void = StandardError.write,
        _ body: () async throws -> T
    ) async throws -> T {
        let status: CommandStatus
        let text: String
        do {
            return try await body()
        } catch let exit as Exit {
            throw exit
        } catch let error as ConfigurationError {
            (status, text) = (.usage, "\(error)")
        } catch let error as ProviderConfigurationError {
            (status, text) = (.usage, "\(ConfigurationError(problems: ["\(error)"]))")
        } catch let error as InstanceLeaseError {
            (status, text) = (.usage, "\(ConfigurationError(problems: ["\(error)"]))")
        } catch let error as PostgresError {
            (status, text) = (.unavailable, "the database: \(error)")
        } catch let error as Migrator.Failure {
            (status, text) = (.unavailable, "the database: \(error)")
        } catch let error as SagaRuntimeError {
            (status, text) = (.unavailable, "the database: \(error)")
        } catch {
            (status, text) = (.internalError, "\(error)")
        }
        write(Self.words(text, status, as: output))
        throw Exit(status)
    }

    /// One or more lines for standard error.
    static func words(_ text: String, _ status: CommandStatus, as output: OutputFormat) -> String {
        let code: RPCCode? =
            switch status {
            case .usage: nil
            case .unavailable: .unavailable
            case .failed: .failedPrecondition
            default: .internal
            }
        return switch (output, code) {
        case (.text, _): "error: \(text)\n"
        case (.json, nil): UsageError(text).json()
        case (.json, let code?): CallFailure(RPCError(code, text)).json()
        }
    }
}
