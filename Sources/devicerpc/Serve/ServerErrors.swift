import DeviceProvisioning
import SagaRuntime

/// Turns what ends a server into words and an exit code.
enum ServerErrors {
    static func reported(_ body: () async throws -> Void) async throws {
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
        } catch let error as SagaRuntimeError {
            (status, text) = (.unavailable, "the database: \(error)")
        } catch {
            (status, text) = (.internalError, "\(error)")
        }
        StandardError.write("error: \(text)\n")
        throw Exit(status)
    }
}
