"""Secure aggregation: a server learns the sum of its clients' vectors, of at least so many of them, and nothing else of any.

Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017, figure 4 (the variant against an active
server); from 65 clients on with the sparse graph of Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead",
CCS 2020. y_u is what the server receives of u's vector x_u:

    y_u = x_u + PRG(b_u) + sum_{v in N(u), u < v} PRG(s_uv) - sum_{v in N(u), v < u} PRG(s_uv)     in a ring Z_2^32 or Z_2^64

    stage      client -> server                      server -> client
    advertise  two X25519 keys, signed               everybody's who came                        U1
    share      Shamir shares of s_u and b_u, sealed  those sealed for it                         U2 in U1
    mask       y_u                                   who has sent one                            U3 in U2
    confirm    a signature of U3                     the signatures of U4 in U3
    unmask     a share of b_v for v in U3,
               or of s_v for v in U2 - U3            -

    terms      what a round is about; its digest is in every signature, key and seal
    identity   Ed25519 keys, that owners know each other by
    shamir     t shares give a secret, t - 1 say nothing
    encoding   real vectors as ring elements, bounded, clipped
    masks      key agreement, seals, streams
    client, server      the state machines: messages in, messages out, no sockets
"""

from syftlite.secagg.client import Client as Client
from syftlite.secagg.encoding import Encoding as Encoding
from syftlite.secagg.identity import Identity as Identity
from syftlite.secagg.server import Server as Server
from syftlite.secagg.terms import Terms as Terms
