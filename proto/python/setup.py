"""Makes the messages and stubs of the .proto files while the package is built; none of them is kept in the repository."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parent / "proto"


class Generate(build_py):
    def run(self) -> None:
        super().run()
        # Known only where the package is built.
        from grpc_tools import protoc

        out = Path(self.build_lib)
        files = sorted(str(path) for path in PROTOS.glob("remora/v1/*.proto"))
        code = protoc.main(
            ["protoc", f"-I{PROTOS}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", *files]
        )
        if code != 0:
            raise RuntimeError(f"protoc ended with {code}")


setup(cmdclass={"build_py": Generate})
