<?php
// php -S 127.0.0.1:9292 index.php for trying it; in production php-fpm behind a web server that listens on loopback.

// Percent-encoded UTF-8, null without the claim. (urldecode would turn + into a space.)
function text(?string $header): ?string {
    return $header === null ? null : rawurldecode($header);
}

function claims(string $header): array {
    return json_decode(base64_decode(strtr($header, "-_", "+/")), true, flags: JSON_THROW_ON_ERROR);
}

function answer(int $status, array $body): never {
    http_response_code($status);
    header("Content-Type: application/json");
    exit(json_encode($body, JSON_THROW_ON_ERROR));
}

// Only a request that came through the sidecar with a valid token has this status.
if (($_SERVER["HTTP_X_JWT_STATUS"] ?? "") !== "verified") {
    answer(403, ["error" => "Not verified"]);
}
if ($_SERVER["REQUEST_URI"] !== "/protected") {
    answer(404, ["error" => "Not found"]);
}
$user = claims($_SERVER["HTTP_X_JWT_CLAIMS"]);
answer(200, ["message" => "Access granted", "sub" => text($_SERVER["HTTP_X_JWT_SUB"] ?? null), "user" => $user]);
