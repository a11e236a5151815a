/// The messages and enums of the package `cloudphone.device.v1`, named as there. Fields are documented in
/// `proto/cloudphone/device/v1`.
public enum V1 {}
