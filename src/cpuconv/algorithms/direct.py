"""stub"""
from cpuconv.plan import Rejection
class Direct:
    name = "direct"
    version = 1
    plain = True
    def supports(self, problem, cpu):
        return Rejection("not yet")
