"""The table of tests/unit/coordinator/test_roles.py: who gets what, where.

A line is a method, an address, and what each role gets: a status, or `sign-in` for a redirect to the sign-in page (which
every such address gives to who is not signed in, whether or not it leads anywhere). `bees` is a published experiment, `secret`
a draft. To who is signed in and may not, a page is not there (404).
"""

TABLE = """
#                                                                  stranger volunteer organizer co-organizer staff

# For everybody, and for machines

GET  /healthz                                                      200      200       200       200          200
GET  /readyz                                                       503      503       503       503          503
GET  /favicon.ico                                                  301      301       301       301          301
GET  /                                                             200      200       200       200          200

# The API

GET  /api/v1/openapi.json                                          200      200       200       200          200
GET  /api/v1/docs                                                  200      200       200       200          200
GET  /api/v1/                                                      404      404       404       404          404
GET  /api/nonsense                                                 404      404       404       404          404
GET  /api/v1/experiments                                           200      200       200       200          200
GET  /api/v1/experiments/bees                                      200      200       200       200          200
GET  /api/v1/experiments/secret                                    404      404       404       404          404
GET  /api/v1/experiments/bees/revisions                            200      200       200       200          200
GET  /api/v1/experiments/secret/revisions                          404      404       404       404          404
GET  /api/v1/experiments/bees/revisions/1                          200      200       200       200          200
GET  /api/v1/experiments/bees/manifest                             200      200       200       200          200
GET  /api/v1/experiments/secret/manifest                           404      404       404       404          404
GET  /api/v1/experiments/bees/bootstrap                            200      200       200       200          200
GET  /api/v1/experiments/bees/series                               200      200       200       200          200
GET  /api/v1/experiments/bees/peers                                200      200       200       200          200
GET  /api/v1/experiments/bees/experts                              200      200       200       200          200
GET  /api/v1/experiments/bees/events                               200      200       200       200          200
GET  /api/v1/experiments/bees/samples                              200      200       200       200          200
GET  /api/v1/experiments/bees/connections                          200      200       200       200          200
GET  /api/v1/experiments/bees/leaderboard                          200      200       200       200          200
GET  /api/v1/experiments/bees/leaderboard/teams                    200      200       200       200          200
GET  /api/v1/experiments/bees/leaderboard/peers?peer={peer}        200      200       200       200          200
GET  /api/v1/experiments/bees/contributions                        200      200       200       200          200
GET  /api/v1/experiments/bees/health                               200      200       200       200          200
GET  /api/v1/leaderboard                                           200      200       200       200          200
GET  /api/v1/leaderboard/teams                                     200      200       200       200          200
GET  /api/v1/leaderboard/peers?peer={peer}                         200      200       200       200          200
GET  /api/v1/peers?id={peer}                                       200      200       200       200          200
GET  /api/v1/peers/{peer}                                          200      200       200       200          200
GET  /api/v1/peers/{peer}/sessions                                 200      200       200       200          200
GET  /api/v1/peers/{peer}/contributions                            200      200       200       200          200
GET  /api/v1/teams                                                 200      200       200       200          200
GET  /api/v1/teams/wasps                                           200      200       200       200          200
GET  /api/v1/operator                                              404      404       404       404          200
POST /api/v1/device                                                200      200       200       200          200
POST /api/v1/device/token                                          400      400       400       400          400
GET  /api/v1/account                                               401      200       200       200          200
GET  /api/v1/account/machines                                      401      200       200       200          200
POST /api/v1/experiments/bees/admission                            401      200       200       200          403
POST /api/v1/experiments/secret/admission                          401      404       404       404          404
GET  /api/v1/organizer/experiments                                 401      200       200       200          200
POST /api/v1/organizer/experiments                                 401      201       201       201          201
GET  /api/v1/organizer/experiments/bees                            401      404       200       200          200
GET  /api/v1/organizer/experiments/secret                          401      404       200       200          200
PUT  /api/v1/organizer/experiments/bees/manifest                   401      404       200       200          200
PUT  /api/v1/organizer/experiments/secret/manifest                 401      404       200       200          200
POST /api/v1/organizer/experiments/bees/status                     401      404       409       409          409
POST /api/v1/organizer/experiments/secret/status                   401      404       200       200          200
POST /api/v1/estimate                                              200      200       200       200          200

# One's own account

GET  /account/                                                     sign-in  200       200       200          200
POST /account/                                                     sign-in  302       302       302          302
GET  /account/tokens/                                              sign-in  200       200       200          200
POST /account/tokens/                                              sign-in  200       200       200          200
POST /account/tokens/{token}/revoke/                               sign-in  302       404       404          404
GET  /account/machines/                                            sign-in  200       200       200          200
POST /account/machines/{machine}/unlink/                           sign-in  302       404       404          404
GET  /account/data/                                                sign-in  200       200       200          200
GET  /account/data/export/                                         sign-in  200       200       200          200
GET  /account/delete/                                              sign-in  302       302       302          302
POST /account/delete/                                              sign-in  302       302       302          302
GET  /device/                                                      sign-in  200       200       200          200
POST /device/                                                      sign-in  200       200       200          200
GET  /accounts/login/                                              200      302       302       302          302
POST /accounts/login/                                              200      302       302       302          302
GET  /accounts/logout/                                             302      200       200       200          200
POST /accounts/logout/                                             302      302       302       302          302
GET  /accounts/inactive/                                           200      200       200       200          200
GET  /accounts/signup/                                             200      302       302       302          302
POST /accounts/signup/                                             200      302       302       302          302
GET  /accounts/reauthenticate/                                     sign-in  200       200       200          200
POST /accounts/reauthenticate/                                     sign-in  200       200       200          200
GET  /accounts/email/                                              sign-in  200       200       200          200
POST /accounts/email/                                              sign-in  302       302       302          302
GET  /accounts/confirm-email/                                      200      200       200       200          200
POST /accounts/confirm-email/                                      405      405       405       405          405
GET  /accounts/confirm-email/x/                                    200      200       200       200          200
POST /accounts/confirm-email/x/                                    404      404       404       404          404
GET  /accounts/password/change/                                    sign-in  200       200       200          200
POST /accounts/password/change/                                    sign-in  200       200       200          200
GET  /accounts/password/set/                                       sign-in  302       302       302          302
POST /accounts/password/set/                                       sign-in  302       302       302          302
GET  /accounts/password/reset/                                     200      200       200       200          200
POST /accounts/password/reset/                                     200      200       200       200          200
GET  /accounts/password/reset/done/                                200      200       200       200          200
GET  /accounts/password/reset/key/x-y/                             200      200       200       200          200
POST /accounts/password/reset/key/x-y/                             200      200       200       200          200
GET  /accounts/password/reset/key/done/                            200      200       200       200          200
GET  /accounts/login/code/confirm/                                 sign-in  302       302       302          302
POST /accounts/login/code/confirm/                                 sign-in  302       302       302          302
GET  /accounts/2fa/                                                sign-in  200       200       200          200
GET  /accounts/2fa/authenticate/                                   sign-in  302       302       302          302
POST /accounts/2fa/authenticate/                                   sign-in  302       302       302          302
GET  /accounts/2fa/reauthenticate/                                 sign-in  302       302       302          302
POST /accounts/2fa/reauthenticate/                                 sign-in  302       302       302          302
GET  /accounts/2fa/totp/activate/                                  sign-in  302       302       302          302
POST /accounts/2fa/totp/activate/                                  sign-in  302       302       302          302
GET  /accounts/2fa/totp/deactivate/                                sign-in  404       404       404          404
POST /accounts/2fa/totp/deactivate/                                sign-in  404       404       404          404
GET  /accounts/2fa/recovery-codes/                                 sign-in  404       404       404          404
GET  /accounts/2fa/recovery-codes/generate/                        sign-in  302       302       302          302
POST /accounts/2fa/recovery-codes/generate/                        sign-in  302       302       302          302
GET  /accounts/2fa/recovery-codes/download/                        sign-in  404       404       404          404
GET  /accounts/3rdparty/                                           sign-in  200       200       200          200
POST /accounts/3rdparty/                                           sign-in  200       200       200          200
GET  /accounts/3rdparty/signup/                                    sign-in  sign-in   sign-in   sign-in      sign-in
POST /accounts/3rdparty/signup/                                    sign-in  sign-in   sign-in   sign-in      sign-in
GET  /accounts/3rdparty/login/cancelled/                           200      200       200       200          200
GET  /accounts/3rdparty/login/error/                               401      401       401       401          401
GET  /accounts/social/login/cancelled/                             301      301       301       301          301
GET  /accounts/social/login/error/                                 301      301       301       301          301
GET  /accounts/social/signup/                                      301      301       301       301          301
GET  /accounts/social/connections/                                 301      301       301       301          301

# Organizers

GET  /organize/                                                    sign-in  200       200       200          200
GET  /organize/new/                                                sign-in  200       200       200          200
GET  /organize/new/?clone=bees                                     sign-in  200       200       200          200
GET  /organize/new/?clone=secret                                   sign-in  404       200       200          200
POST /organize/new/                                                sign-in  302       302       302          302
POST /organize/estimate/                                           sign-in  200       200       200          200
GET  /experiments/bees/                                            200      200       200       200          200
GET  /experiments/secret/                                          404      404       404       404          404
GET  /experiments/bees/edit/                                       sign-in  404       200       200          200
POST /experiments/bees/edit/                                       sign-in  404       302       302          302
GET  /experiments/secret/edit/                                     sign-in  404       200       200          200
POST /experiments/secret/edit/                                     sign-in  404       302       302          302
POST /experiments/bees/status/                                     sign-in  404       302       302          302
POST /experiments/secret/status/                                   sign-in  404       302       302          302
POST /experiments/bees/archive/                                    sign-in  404       302       404          302
POST /experiments/bees/delete/                                     sign-in  404       302       404          302
POST /experiments/secret/delete/                                   sign-in  404       302       404          302
GET  /experiments/bees/revisions/                                  sign-in  404       200       200          200
GET  /experiments/secret/revisions/                                sign-in  404       200       200          200
GET  /experiments/bees/revisions/1/                                sign-in  404       200       200          200

# Who takes part

GET  /invitations/{code}/                                          200      200       200       200          200
POST /invitations/{code}/                                          sign-in  302       302       302          302
GET  /invitations/{draft_code}/                                    404      404       404       404          404
GET  /experiments/bees/join/                                       200      200       200       200          200
GET  /experiments/secret/join/                                     404      404       404       404          404
POST /experiments/bees/join/ask/                                   sign-in  302       302       302          302
POST /experiments/secret/join/ask/                                 sign-in  404       404       404          404
GET  /experiments/bees/people/                                     sign-in  404       200       200          200
GET  /experiments/secret/people/                                   sign-in  404       200       200          200
POST /experiments/bees/people/invite/                              sign-in  404       302       302          302
POST /experiments/bees/people/invitations/{link}/withdraw/         sign-in  404       302       302          302
POST /experiments/bees/people/members/{charlie}/                   sign-in  404       302       302          302
POST /experiments/bees/people/organizers/                          sign-in  404       302       404          302
POST /experiments/bees/people/organizers/{dora}/dismiss/           sign-in  404       302       404          302

# Leaderboard, peers, teams

GET  /leaderboard/                                                 200      200       200       200          200
GET  /leaderboard/numbers/                                         200      200       200       200          200
GET  /leaderboard/in/bees/                                         200      200       200       200          200
GET  /leaderboard/in/secret/                                       404      404       404       404          404
GET  /peers/?id={peer}                                             302      302       302       302          302
GET  /peers/{peer}/                                                200      200       200       200          200
GET  /teams/                                                       200      200       200       200          200
POST /teams/                                                       sign-in  302       302       302          302
GET  /teams/wasps/                                                 200      200       200       200          200
POST /teams/wasps/join/                                            sign-in  302       302       302          302
POST /teams/leave/                                                 sign-in  302       302       302          302

# The operator

GET  /operator/                                                    sign-in  404       404       404          200
GET  /metrics                                                      200      200       200       200          200
"""
