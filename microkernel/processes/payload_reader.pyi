from microkernel.objects.store import ObjectStore
from microkernel.processes.function_table import FunctionTable

class PayloadReader:
    @property
    def objects(self) -> ObjectStore | None: ...
    @property
    def functions(self) -> FunctionTable: ...
