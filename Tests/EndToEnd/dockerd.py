#!/usr/bin/env python3
"""A private Docker engine for tests, with the stand-in phone's images in it.

As a module:
    with DockerEngine() as engine:
        os.environ["DOCKER_HOST"] = engine.docker_host        # unix:///tmp/…/docker.sock

From a shell (start prints the directory and DOCKER_HOST; stop takes the directory):
    dockerd.py start            ->  /tmp/dkr-1a2b3c unix:///tmp/dkr-1a2b3c/docker.sock
    dockerd.py stop /tmp/dkr-1a2b3c

For a test program that shall not leave anything behind, however it ends:
    dockerd.py run [--adb]      prints DOCKER_HOST, with --adb also the port of a private adb server; reads commands from standard input: `stop`, `kill` and `start` stop, kill and start the
                                engine, and answer `ok`; at the end of the input all is cleaned up.

The engine has its own data directory, socket and bridge, touches neither iptables nor forwarding, and needs root. Host
ports reach containers through Docker's userland proxy. Several can run at once.
"""

import contextlib
import fcntl
import glob
import http.client
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
PHONE = os.path.join(HERE, "..", "StandInPhone", "phone.c")

# Boot arguments that make the phone of each image what README.md in StandInPhone says.
IMAGES = {
    "11.0.0": ["androidboot.standin_boot_ms=300"],
    "12.0.0": ["androidboot.standin_never_boot=1"],
    "13.0.0": ["androidboot.standin_exit_ms=500", "androidboot.standin_never_boot=1"],
    "14.0.0": ["androidboot.standin_adb_ms=2000", "androidboot.standin_boot_ms=3000"],
}
# What REDROID_IMAGE is to be for these.
REDROID_IMAGE = ",".join(f"{tag.split('.')[0]}=standin:{tag}" for tag in IMAGES)

# linux/capability.h, in the order of their numbers.
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

# linux/sockios.h
SIOCBRADDBR, SIOCBRDELBR = 0x89A0, 0x89A1
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP = 1


class Bridge:
    """A network bridge with an address, made by ioctl, so that no `ip` program is needed."""

    def __init__(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for _ in range(100):
                self.name = f"dkr{random.randrange(1 << 32):08x}"
                subnet = f"10.{random.randrange(200, 255)}.{random.randrange(256)}"
                if subnet in open("/proc/net/fib_trie").read():
                    continue
                try:
                    fcntl.ioctl(control, SIOCBRADDBR, self.name.encode() + b"\0")
                except FileExistsError:
                    continue
                self._set_address(control, SIOCSIFADDR, subnet + ".1")
                self._set_address(control, SIOCSIFNETMASK, "255.255.255.0")
                self._set_up(control, True)
                return
        raise RuntimeError("no bridge could be made")

    @staticmethod
    def delete(name):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            bridge = Bridge.__new__(Bridge)
            bridge.name = name
            try:
                bridge._set_up(control, False)
                fcntl.ioctl(control, SIOCBRDELBR, name.encode() + b"\0")
            except OSError:
                pass  # it is gone already

    def _set_address(self, control, request, address):
        sockaddr = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(control, request, struct.pack("16s16s8x", self.name.encode(), sockaddr))

    def _set_up(self, control, up):
        request = struct.pack("16sh22x", self.name.encode(), 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", self.name.encode(), flags))


class UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=120):
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class DockerEngine:
    """`directory`: that of an engine that runs already, from another process."""

    def __init__(self, directory=None):
        self.process = None
        if directory:
            self.directory = directory
            self.bridge = open(self._path("bridge")).read()
            return
        if os.geteuid() != 0:
            raise RuntimeError("a private Docker engine needs root")
        self.directory = tempfile.mkdtemp(prefix="dkr-", dir="/tmp")
        try:
            self.bridge = Bridge().name
            with open(self._path("bridge"), "w") as file:
                file.write(self.bridge)
            # A key, and so an id, of its own: by default the engines of a machine share one.
            with open(self._path("daemon.json"), "w") as file:
                json.dump({"deprecated-key-path": self._path("key.json")}, file)
            self.start()
            self._import_images()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _path(self, name):
        return os.path.join(self.directory, name)

    @property
    def socket_path(self):
        return self._path("docker.sock")

    @property
    def docker_host(self):
        return "unix://" + self.socket_path

    def start(self):
        """Starts the engine's process; returns once it answers. Containers that ran before run again."""
        arguments = [
            "dockerd", "--config-file", self._path("daemon.json"), "--host", self.docker_host, "--data-root", self._path("data"), "--exec-root", self._path("exec"),
            "--pidfile", self._path("pid"), "--storage-driver=vfs", "--iptables=false", "--ip6tables=false",
            "--ip-forward=false", "--ip-masq=false", f"--bridge={self.bridge}", "--userland-proxy=true",
            "--shutdown-timeout=3", "--log-level=warn",
        ]
        runtime = self._filtering_runtime()
        if runtime:
            arguments += ["--add-runtime", f"filtered={runtime}", "--default-runtime=filtered"]
        with open(self._path("log"), "ab") as log:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if self.request("GET", "/_ping")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError("dockerd did not start:\n" + open(self._path("log"), errors="replace").read()[-3000:])

    def stop(self, how=signal.SIGTERM):
        """Stops the engine's process; the data stays. Ended with SIGTERM it takes its containers down with it."""
        try:
            pid = int(open(self._path("pid")).read())
        except (OSError, ValueError):
            pid = self.process.pid if self.process else None
        if pid:
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                pass
            deadline = time.monotonic() + 60
            while self._runs(pid):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)
        if self.process:
            self.process.wait()
            self.process = None
        if how == signal.SIGKILL:
            # As a machine that lost its power: what hung on the engine is gone too, and its files say nothing.
            self._kill_own_processes()
            for name in ("pid", "docker.sock", "exec/containerd/containerd.pid", "exec/containerd/containerd.sock"):
                if os.path.exists(self._path(name)):
                    os.unlink(self._path(name))

    def _runs(self, pid):
        if self.process and self.process.pid == pid:
            return self.process.poll() is None
        try:
            state = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
        except OSError:
            return False
        return state != "Z"

    def close(self):
        """Ends everything and removes it: containers, processes, mounts, bridge, files."""
        try:
            for container in self.get("/containers/json?all=1"):
                self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        except (OSError, http.client.HTTPException, ValueError):
            pass
        self.stop()
        self._kill_own_processes()
        mounts = [line.split()[4] for line in open("/proc/self/mountinfo")]
        for mount in sorted((m for m in mounts if m.startswith(self.directory + "/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        if getattr(self, "bridge", None):
            Bridge.delete(self.bridge)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _own_processes(self):
        """What an engine that was killed leaves: containerd and its shims, whose command lines name the engine's
        directory, and the processes in its containers, whose control groups name the container."""
        marks = [(self.directory + "/").encode()]
        marks += [os.path.basename(path).encode() for path in glob.glob(self._path("data/containers/*"))]
        pids = []
        for path in glob.glob("/proc/[0-9]*"):
            try:
                pid = int(os.path.basename(path))
                words = open(f"{path}/cmdline", "rb").read() + open(f"{path}/cgroup", "rb").read()
                dead = open(f"{path}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                continue
            if pid != os.getpid() and not dead and any(mark in words for mark in marks):
                pids.append(pid)
        return pids

    def _kill_own_processes(self):
        deadline = time.monotonic() + 5
        while (pids := self._own_processes()) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)

    def request(self, method, path, body=None, content_type="application/json"):
        """One call of the engine's API: (status, body)."""
        connection = UnixHTTPConnection(self.socket_path)
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path):
        status, body = self.request("GET", path)
        if status != 200:
            raise ValueError(f"GET {path}: {status} {body!r}")
        return json.loads(body)

    def owned(self, installation):
        """Names of all containers and volumes of an installation (of any, if None): what an audit compares."""
        labels = {"devicerpc_installation": installation} if installation else {"devicerpc_managed": "true"}
        containers = [container["Names"][0].lstrip("/") for container in self.containers(**labels)]
        return sorted(containers + [volume["Name"] for volume in self.volumes(**labels)])

    def containers(self, **labels):
        """Every container with these labels, running or not: containers(devicerpc_saga="saga_…")."""
        return self.get("/containers/json?all=1&filters=" + self._filters(labels))

    def volumes(self, **labels):
        return self.get("/volumes?filters=" + self._filters(labels))["Volumes"] or []

    @staticmethod
    def _filters(labels):
        words = [f"{name.replace('_', '.')}={value}" for name, value in labels.items()]
        return urllib.parse.quote(json.dumps({"label": words}))

    def _import_images(self):
        """Compiles the phone and imports it once per variant (they share their layer)."""
        subprocess.run(["gcc", "-static", "-O2", "-s", "-Wall", "-o", self._path("init"), PHONE], check=True)
        with tarfile.open(self._path("image.tar"), "w") as archive:
            archive.add(self._path("init"), arcname="init")
        content = open(self._path("image.tar"), "rb").read()
        for tag, arguments in IMAGES.items():
            entry = json.dumps(["/init", "qemu=1", "androidboot.hardware=redroid", *arguments])
            query = urllib.parse.urlencode(
                {"fromSrc": "-", "repo": "standin", "tag": tag, "changes": f"ENTRYPOINT {entry}"}
            )
            status, body = self.request("POST", f"/images/create?{query}", content, "application/x-tar")
            if status != 200 or b'"error"' in body:
                raise RuntimeError(f"image import: {status} {body!r}")

    def _filtering_runtime(self):
        """A privileged container gets every capability, which fails where this process is itself denied some (in a
        sandbox). There, a wrapper around runc takes those out of each container's configuration."""
        status = open("/proc/self/status").read()
        bounding = int(status.split("CapBnd:")[1].split()[0], 16)
        denied = [f"CAP_{name}" for number, name in enumerate(CAPABILITIES) if not bounding >> number & 1]
        last = int(open("/proc/sys/kernel/cap_last_cap").read())
        denied = [name for name in denied if CAPABILITIES.index(name[4:]) <= last]
        if not denied:
            return None
        with open(self._path("filter.py"), "w") as file:
            file.write(
                "import json, sys\n"
                f"denied = {denied!r}\n"
                "config = json.load(open(sys.argv[1]))\n"
                "for names in config['process'].get('capabilities', {}).values():\n"
                "    names[:] = [name for name in names if name not in denied]\n"
                "json.dump(config, open(sys.argv[1], 'w'))\n"
            )
        with open(self._path("runc"), "w") as file:
            file.write(
                "#!/bin/sh\n"
                "bundle=; previous=; create=\n"
                'for word; do\n'
                '    [ "$previous" = --bundle ] && bundle=$word\n'
                '    [ "$word" = create ] && create=1\n'
                '    previous=$word\n'
                "done\n"
                f'[ -n "$create" ] && {sys.executable} -S -E {self._path("filter.py")} "$bundle/config.json"\n'
                'exec runc "$@"\n'
            )
        os.chmod(self._path("runc"), 0o755)
        return self._path("runc")


def free_port():
    """A port that nobody listens on, below those that the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(10000, 32000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


class ADBServer:
    """A private adb server on a port of its own, with its keys and log in `directory`. Started again should it crash."""

    def __init__(self, directory):
        self.directory = directory
        self.closed = False
        self.port = free_port()
        self._start()
        threading.Thread(target=self._supervise, daemon=True).start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        self.close()
        raise RuntimeError("the adb server did not start")

    def _start(self):
        with open(os.path.join(self.directory, "adb.log"), "ab") as log:
            self.process = subprocess.Popen(
                ["adb", "-P", str(self.port), "nodaemon", "server"], env={**os.environ, "HOME": self.directory},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )

    def _supervise(self):
        while not self.closed:
            if self.process.poll() is not None:
                log = open(os.path.join(self.directory, "adb.log"), errors="replace").read()
                print(f"the adb server ended with {self.process.returncode}:\n{log[-2000:]}", file=sys.stderr)
                self._start()
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closed = True
        time.sleep(0.2)  # the supervisor has seen it
        self.process.kill()
        self.process.wait()


def run(with_adb):
    """See the module's text."""
    def leave(*_):
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the tests; their end is ours
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(DockerEngine())
        print(engine.docker_host, flush=True)
        if with_adb:
            print(stack.enter_context(ADBServer(engine.directory)).port, flush=True)
        for line in sys.stdin:
            if line.strip() == "stop":
                engine.stop()
            elif line.strip() == "kill":
                engine.stop(signal.SIGKILL)
            elif line.strip() == "start":
                engine.start()
            print("ok", flush=True)


def main():
    if sys.argv[1:] == ["start"]:
        engine = DockerEngine()
        print(engine.directory, engine.docker_host)
    elif sys.argv[1:2] == ["stop"] and len(sys.argv) == 3:
        DockerEngine(sys.argv[2]).close()
    elif sys.argv[1:2] == ["run"]:
        run("--adb" in sys.argv[2:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
