"""`deploy park` and `deploy reboot`: to bring an arm home that a run left standing."""

from __future__ import annotations

from deploy.opening import ARM, ArmConfig, open_arm
from deploy.safety_config import SAFETY, SafetyConfig
from genvla.errors import UserError

SERVOS = ArmConfig(driver="dynamixel")


def park(arm: ArmConfig = ARM, safety: SafetyConfig = SAFETY) -> int:
    """Bring the arm from wherever it stands to its sleep pose, and switch its motors off.

    The way leads up, back and down; have an eye on what is in it.

    Args:
        arm: which arm.
        safety: the limits.
    """
    guarded = open_arm(arm, safety)
    try:
        guarded.connect()
        guarded.park("asked for")
    finally:
        guarded.close()
    print("parked")
    return 0


def reboot(motors: list[str], arm: ArmConfig = SERVOS) -> int:
    """Restart motors that switched themselves off because of an error. They let go: support the arm.

    Args:
        motors: names, such as shoulder or elbow_shadow.
        arm: which arm.
    """
    from deploy.drivers import MOTORS
    from deploy.drivers.servo_bus import reboot_motors

    unknown = [name for name in motors if name not in MOTORS]
    if unknown or not motors:
        raise UserError(f"reboot: motors: {', '.join(unknown) or 'nothing'} found, some of {', '.join(MOTORS)} wanted")
    if arm.driver != "dynamixel" or arm.dry_run:
        raise UserError(f"reboot: driver: {arm.driver} found, dynamixel wanted: no other has motors to restart")
    reboot_motors(arm.port, motors)
    print(f"restarted: {', '.join(motors)}")
    return 0
