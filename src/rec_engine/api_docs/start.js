// Shows the routes of this service, each of which can be tried; nothing is asked of any other.
"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#routes",
  deepLinking: true,
  validatorUrl: null,
});
