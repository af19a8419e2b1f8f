"""The SDK: submit a request, read its events, join it later, cancel it.

- `client`: `Client`, what a caller begins with
- `stream`: `Stream`, one request as its caller reads it
- `reader`: log and live events spliced, by the rules of `bridge.sequence`
- `feed`: live events that wait for their reader
- `link`: a client's connection, and what is open on it
- `submission`: a job published until JetStream has it, or says why not
- `spoken`: what was heard before an interruption, for the history
- `cells`: which prefix serves a request, where there are several; ids that fit
"""

from bridge.client.cells import cell_of
from bridge.client.client import Client
from bridge.client.spoken import spoken_message
from bridge.client.stream import Stream

__all__ = ["Client", "Stream", "cell_of", "spoken_message"]
