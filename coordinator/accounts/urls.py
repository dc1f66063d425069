from django.urls import include, path

from coordinator.accounts import views

urlpatterns = [
    path("account/", views.profile, name="account"),
    path("account/tokens/", views.tokens, name="account_tokens"),
    path("account/tokens/<int:pk>/revoke/", views.revoke_token, name="account_token_revoke"),
    path("account/machines/", views.machines, name="account_machines"),
    path("account/machines/<int:pk>/unlink/", views.unlink_machine, name="account_machine_unlink"),
    path("account/data/", views.data, name="account_data"),
    path("account/data/export/", views.export, name="account_export"),
    path("account/delete/", views.delete, name="account_delete"),
    path("device/", views.device, name="device"),
    path("accounts/", include("allauth.urls")),
]
